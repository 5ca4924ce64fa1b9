//! What of a search does not go together, and what to send instead.

use crate::types::limits::{
    MAX_DIVERSE_WINDOW, MAX_FACETS, MAX_FIELD_NAME_BYTES, MAX_GROUP_SIZE, MAX_LIKE, MAX_SEARCH_WINDOW,
};
use crate::types::{Fusion, Mode, Paging, Query, SearchRequest};

use super::rerank::check_rerank;
use super::{CollectionError, out_of_range};

/// Checks what concerns modes, pages, groups, diversity and facets.
///
/// # Errors
/// [`CollectionError::OutOfRange`] and [`CollectionError::Query`].
pub fn check_parts(request: &SearchRequest) -> Result<(), CollectionError> {
    check_query(request)?;
    check_paging(request)?;
    check_grouping(request)?;
    check_diversity(request)?;
    check_rerank(request)?;
    check_facets(&request.facets)?;
    if request.highlight && text_of(&request.query).is_none() {
        return refuse("\"highlight\" marks the words of a query text; send \"text\", or leave \"highlight\" out");
    }
    Ok(())
}

/// The words that a query comes with.
pub fn text_of(query: &Query) -> Option<&str> {
    match query {
        Query::Text(text) | Query::TextAndVector { text, .. } => Some(text),
        Query::Vector(_) | Query::Document(_) | Query::Like { .. } => None,
    }
}

fn check_query(request: &SearchRequest) -> Result<(), CollectionError> {
    match (&request.query, request.mode) {
        // Words are looked for by those that it has. A model makes a vector of nothing, too, and something is near it.
        (Query::Text(text), Mode::Vector) if text.trim().is_empty() => {
            return refuse("the query text is empty; send what to search for");
        }
        (Query::Text(_), _) | (Query::TextAndVector { .. }, Mode::Hybrid(_)) => {}
        (Query::TextAndVector { .. }, _) => {
            return refuse(
                "\"text\" and \"vector\" go together only in \"mode\": \"hybrid\"; send one, or set that mode",
            );
        }
        (_, Mode::Keyword) => {
            return refuse(
                "\"mode\": \"keyword\" looks for words and needs \"text\"; send it alone, or search by \"mode\": \"vector\"",
            );
        }
        (_, Mode::Hybrid(_)) => {
            return refuse(
                "\"mode\": \"hybrid\" needs \"text\" for its words, with \"vector\" beside it or without; send it, or \
                 search by \"mode\": \"vector\"",
            );
        }
        (_, Mode::Vector) => {}
    }
    if request.mode == Mode::Keyword && (request.exact || request.ef_search.is_some()) {
        return refuse("\"exact\" and \"ef_search\" are about vectors; leave them out in \"mode\": \"keyword\"");
    }
    if let Mode::Hybrid(Fusion::Weighted { alpha }) = request.mode
        && !(0.0..=1.0).contains(&alpha)
    {
        return Err(out_of_range("alpha", alpha, 0, 1));
    }
    if let Query::Like { positive, negative } = &request.query {
        for (name, ids, least) in [("like.positive", positive, 1), ("like.negative", negative, 0)] {
            if !(least..=MAX_LIKE).contains(&ids.len()) {
                return Err(out_of_range(name, ids.len(), least, MAX_LIKE));
            }
        }
        if let Some(both) = positive.iter().find(|id| negative.contains(id)) {
            let id = both.as_str();
            return refuse(format!("document {id:?} cannot be both liked and disliked; name it in one of the lists"));
        }
    }
    match text_of(&request.query) {
        Some(text) => super::write::check_length(|| "the query text".to_owned(), text.len()),
        None => Ok(()),
    }
}

fn check_paging(request: &SearchRequest) -> Result<(), CollectionError> {
    let most = MAX_SEARCH_WINDOW - request.top_k;
    match &request.paging {
        Paging::Offset(offset) if *offset > most => Err(out_of_range("offset", offset, 0, most)),
        Paging::After(after) if after.rank > most || !after.score.is_finite() => Err(too_deep()),
        Paging::Offset(_) | Paging::FirstPage | Paging::After(_) => Ok(()),
    }
}

/// The page after the last that can be had.
pub fn too_deep() -> CollectionError {
    let detail =
        format!("pages reach {MAX_SEARCH_WINDOW} hits deep and this one is deeper; narrow the search by a filter");
    CollectionError::Query { detail }
}

fn check_grouping(request: &SearchRequest) -> Result<(), CollectionError> {
    let Some(grouping) = &request.grouping else { return Ok(()) };
    if !(1..=MAX_GROUP_SIZE).contains(&grouping.size) {
        return Err(out_of_range("group_size", grouping.size, 1, MAX_GROUP_SIZE));
    }
    if grouping.field.is_empty() {
        return refuse("\"group_by\" is empty; name a field there, or leave it out");
    }
    check_field("group_by", &grouping.field)?;
    if request.diversity.is_some() {
        return refuse("\"group_by\" and \"diversity\" do not go together; leave one of them out");
    }
    if !matches!(request.paging, Paging::Offset(_)) {
        return refuse("groups have no cursor; page through them by \"offset\"");
    }
    Ok(())
}

fn check_facets(facets: &[String]) -> Result<(), CollectionError> {
    if facets.len() > MAX_FACETS {
        return Err(out_of_range("facets", facets.len(), 0, MAX_FACETS));
    }
    for (at, field) in facets.iter().enumerate() {
        if field.is_empty() {
            return refuse("\"facets\" names a field without a name; leave it out");
        }
        check_field("facets", field)?;
        if facets[..at].contains(field) {
            return refuse(format!("\"facets\" names {field:?} twice; name it once"));
        }
    }
    Ok(())
}

/// Refuses a field that no document can have. `option`: where it is named.
pub fn check_field(option: &str, field: &str) -> Result<(), CollectionError> {
    match field.len() {
        len if len > MAX_FIELD_NAME_BYTES => {
            refuse(format!("\"{option}\" names a field of {len} bytes, at most {MAX_FIELD_NAME_BYTES} are allowed"))
        }
        _ => Ok(()),
    }
}

fn check_diversity(request: &SearchRequest) -> Result<(), CollectionError> {
    let Some(diversity) = request.diversity else { return Ok(()) };
    if !(0.0..=1.0).contains(&diversity) {
        return Err(out_of_range("diversity", diversity, 0, 1));
    }
    let most = MAX_DIVERSE_WINDOW - request.top_k.min(MAX_DIVERSE_WINDOW);
    match request.paging {
        Paging::Offset(offset) if offset > most => Err(out_of_range("offset", offset, 0, most)),
        Paging::Offset(_) => Ok(()),
        _ => refuse("a diverse ranking has no cursor; page through it by \"offset\""),
    }
}

fn refuse(detail: impl Into<String>) -> Result<(), CollectionError> {
    Err(CollectionError::Query { detail: detail.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DocumentId, Grouping, Rerank, SearchAfter};

    fn text() -> SearchRequest {
        SearchRequest::new(Query::Text("a".into()))
    }

    fn vector() -> SearchRequest {
        SearchRequest::new(Query::Vector(vec![1.0]))
    }

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn rerank(top_n: usize) -> Option<Rerank> {
        Some(Rerank { model: "m".into(), top_n, field: None })
    }

    fn like(positive: &[&str], negative: &[&str]) -> SearchRequest {
        let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect();
        SearchRequest::new(Query::Like { positive: ids(positive), negative: ids(negative) })
    }

    #[test]
    fn what_goes_together_passes() {
        let hybrid = Mode::Hybrid(Fusion::Weighted { alpha: 0.3 });
        let both = Query::TextAndVector { text: "a".into(), vector: vec![1.0] };
        let grouping = Some(Grouping { field: "f".into(), size: 3 });
        let requests = [
            vector(),
            SearchRequest { mode: Mode::Keyword, highlight: true, ..text() },
            SearchRequest { mode: hybrid, exact: true, ..text() },
            SearchRequest { mode: hybrid, highlight: true, ..SearchRequest::new(both) },
            SearchRequest { paging: Paging::Offset(9_990), grouping, ..vector() },
            SearchRequest { paging: Paging::Offset(990), diversity: Some(1.0), ..vector() },
            like(&["a"], &[]),
            SearchRequest { rerank: rerank(15), paging: Paging::Offset(5), ..text() },
        ];
        for request in requests {
            assert!(check_parts(&request).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn what_does_not_is_refused_with_the_way_out() {
        let both = || SearchRequest::new(Query::TextAndVector { text: "a".into(), vector: vec![1.0] });
        let grouping = |size| Some(Grouping { field: "f".into(), size });
        let after = |rank, score| Paging::After(SearchAfter { rank, score, id: id("a") });
        let long_group = Some(Grouping { field: ".".repeat(1_025), size: 1 });
        let long_rerank = Some(Rerank { model: "m".into(), top_n: 10, field: Some(".".repeat(1_025)) });
        let cases = [
            (SearchRequest { mode: Mode::Keyword, ..vector() }, "needs \"text\""),
            (SearchRequest { mode: Mode::Hybrid(Fusion::ReciprocalRank), ..vector() }, "needs \"text\""),
            (both(), "only in \"mode\": \"hybrid\""),
            (SearchRequest { mode: Mode::Keyword, ..both() }, "only in \"mode\": \"hybrid\""),
            (SearchRequest { mode: Mode::Keyword, exact: true, ..text() }, "leave them out"),
            (SearchRequest { mode: Mode::Hybrid(Fusion::Weighted { alpha: 1.5 }), ..text() }, "0 to 1"),
            (SearchRequest { mode: Mode::Hybrid(Fusion::Weighted { alpha: f32::NAN }), ..text() }, "0 to 1"),
            (like(&[], &["a"]), "like.positive"),
            (like(&["a"], &["a"]), "cannot be both"),
            (SearchRequest { paging: Paging::Offset(9_991), ..vector() }, "0 to 9990"),
            (SearchRequest { paging: Paging::Offset(usize::MAX), ..vector() }, "0 to 9990"),
            (SearchRequest { paging: after(9_991, 1.0), ..vector() }, "narrow the search"),
            (SearchRequest { paging: after(1, f32::NAN), ..vector() }, "narrow the search"),
            (SearchRequest { grouping: grouping(0), ..vector() }, "1 to 100"),
            (SearchRequest { grouping: grouping(1), diversity: Some(0.5), ..vector() }, "leave one of them out"),
            (SearchRequest { grouping: grouping(1), paging: Paging::FirstPage, ..vector() }, "\"offset\""),
            (SearchRequest { diversity: Some(-0.1), ..vector() }, "0 to 1"),
            (SearchRequest { diversity: Some(0.1), paging: Paging::FirstPage, ..vector() }, "\"offset\""),
            (SearchRequest { diversity: Some(0.1), paging: Paging::Offset(991), ..vector() }, "0 to 990"),
            (SearchRequest { facets: vec!["a".into(); 17], ..vector() }, "0 to 16"),
            (SearchRequest { facets: vec!["a".into(), "b".into(), "a".into()], ..vector() }, "name it once"),
            (SearchRequest { facets: vec![".".repeat(1_025)], ..vector() }, "\"facets\" names a field of 1025 bytes"),
            (SearchRequest { grouping: long_group, ..vector() }, "\"group_by\" names a field of 1025 bytes"),
            (SearchRequest { rerank: long_rerank, ..text() }, "\"rerank.field\" names a field of 1025 bytes"),
            (SearchRequest { highlight: true, ..vector() }, "send \"text\""),
            (SearchRequest { rerank: rerank(10), ..vector() }, "send \"text\""),
            (SearchRequest { rerank: rerank(9), ..text() }, "10 to 200"),
            (SearchRequest { rerank: rerank(201), ..text() }, "10 to 200"),
            (SearchRequest { rerank: rerank(10), paging: Paging::FirstPage, ..text() }, "\"offset\""),
            (SearchRequest { rerank: rerank(10), diversity: Some(0.5), ..text() }, "leave one"),
        ];
        for (request, wanted) in cases {
            let error = check_parts(&request).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error} does not say {wanted}");
        }
    }
}
