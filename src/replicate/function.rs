//! The function beside a table of the layout `match_documents`: made where it is missing, made anew where it is ours.

use crate::postgres::{QualifiedName, Session, Type, quote_identifier, quote_literal, value};
use crate::types::Metric;

use super::ReplicateError;
use super::layout::{Layout, Source};

/// Stands in every function that we make, to tell it from those of others.
const MARK: &str = "-- Made by Pannier, which replaces it; give one of your own another name.";
/// Rows of a call that names no count: as many as an API of Supabase answers with.
const MOST_ROWS: u32 = 1_000;
/// Longest name in a catalogue: NAMEDATALEN - 1.
const MAX_NAME_BYTES: usize = 63;

/// The function of a table: `match_` and the table's name, in the table's schema.
pub(super) fn name_of(table: &QualifiedName) -> QualifiedName {
    let mut name = format!("match_{}", table.name);
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    QualifiedName::new(table.schema.clone(), name)
}

/// A function as the catalogue has it.
struct Found {
    /// With the types of its arguments, as `drop function` takes it.
    signature: String,
    arguments: String,
    result: String,
    body: String,
}

/// Makes the function where it is missing, and again where it is an older one of ours. Its rights stay, unless its
/// types change.
///
/// # Errors
/// [`ReplicateError::Drift`] with the differences where somebody else's has the name, [`ReplicateError::Postgres`].
pub(super) async fn ensure(session: &Session, layout: &Layout) -> Result<(), ReplicateError> {
    let Some(name) = &layout.function else { return Ok(()) };
    let wanted = Function::of(layout, name);
    let found = find(session, name).await?;
    let others: Vec<String> = found.iter().filter_map(|found| wanted.difference(found)).collect();
    if !others.is_empty() {
        return Err(ReplicateError::Drift { table: layout.table.plain(), differences: others });
    }
    if matches!(found.as_slice(), [only] if only.body == wanted.body && wanted.has_types_of(only)) {
        return Ok(());
    }
    // Types of arguments and results cannot be replaced, and two of one name are ambiguous to PostgREST.
    let old = found.iter().filter(|found| !wanted.has_types_of(found));
    let drops: String = old.map(|found| format!("drop function {};\n", found.signature)).collect();
    // Until a session uses pgvector, its settings are unknown there, and no plain role may name an unknown one.
    let uses = format!("select '[0]'::{}", layout.extension.name("vector"));
    let sql = format!("begin;\nselect pg_advisory_xact_lock(7117, 2);\n{uses};\n{drops}{};\ncommit", wanted.statement);
    if let Err(error) = session.batch("make the function", &sql).await {
        if !error.ends_session() {
            session.batch("roll back", "rollback").await?;
        }
        return Err(error.into());
    }
    Ok(())
}

async fn find(session: &Session, name: &QualifiedName) -> Result<Vec<Found>, ReplicateError> {
    let sql = "select p.oid::regprocedure::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), \
               p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
               where n.nspname = $1 and p.proname = $2 and p.prokind = 'f' order by p.oid";
    let params: [crate::postgres::Param<'_>; 2] = [(&name.schema, Type::TEXT), (&name.name, Type::TEXT)];
    let rows = session.query("look for the function", sql, &params).await?;
    let found = |row: &crate::postgres::Row| {
        let (signature, arguments, result) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        Ok(Found { signature, arguments, result, body: value(row, 3)? })
    };
    rows.iter().map(found).collect()
}

/// The function that a layout has.
struct Function {
    name: String,
    /// As the catalogue shows them, the extension's schema left out.
    arguments: String,
    result: String,
    body: String,
    statement: String,
    /// The extension's schema.
    extension: String,
}

impl Function {
    fn of(layout: &Layout, name: &QualifiedName) -> Self {
        let kind_of = |wanted: &Source| {
            let column = layout.columns.iter().find(|column| column.source == *wanted);
            column.map_or("text", |column| column.kind.name())
        };
        let (id, vector) = (kind_of(&Source::Id), kind_of(&Source::Vector));
        let qualified = format!("{}({})", layout.extension.name(vector), layout.dim);
        let body = body(layout, &quote_identifier(&name.name), id);
        // Both extras have defaults, since one client leaves out the count and the other sends it. It is planned anew
        // for each call, since a plan for any count would rather sort; and scanned on where a filter leaves too few.
        // The planner does not see what reading vectors that are stored apart costs, so it may not read the table
        // through.
        let statement = format!(
            "create or replace function {name}(query_embedding {qualified}, match_count int default null, \
             filter jsonb default '{{}}')\n\
             returns table (id {id}, content text, metadata jsonb, embedding {qualified}, similarity float)\n\
             language plpgsql stable security invoker\n\
             set search_path = {schema}, {extension}, pg_temp\n\
             set plan_cache_mode = force_custom_plan\n\
             set hnsw.iterative_scan = strict_order\n\
             set enable_seqscan = off\n\
             as {body}",
            schema = quote_identifier(&layout.table.schema),
            extension = quote_identifier(&layout.extension.schema),
            body = quote_literal(&body),
        );
        Self {
            name: name.plain(),
            arguments: format!(
                "query_embedding {vector}, match_count integer DEFAULT NULL::integer, filter jsonb DEFAULT '{{}}'::jsonb"
            ),
            result: format!(
                "TABLE(id {id}, content text, metadata jsonb, embedding {vector}, similarity double precision)"
            ),
            body,
            statement,
            extension: layout.extension.schema.clone(),
        }
    }

    /// A type as it is shown, without the extension's schema.
    fn plain(&self, shown: &str) -> String {
        shown
            .replace(&format!("{}.", quote_identifier(&self.extension)), "")
            .replace(&format!("{}.", self.extension), "")
    }

    fn has_types_of(&self, found: &Found) -> bool {
        self.plain(&found.arguments) == self.arguments && self.plain(&found.result) == self.result
    }

    /// In what a function that is not ours differs; `None` for one of ours.
    fn difference(&self, found: &Found) -> Option<String> {
        if found.body.contains(MARK) {
            return None;
        }
        let mut differences = Vec::new();
        for (what, there, needed) in
            [("takes", &found.arguments, &self.arguments), ("returns", &found.result, &self.result)]
        {
            if self.plain(there) != *needed {
                differences.push(format!("it {what} ({there}), needed is ({needed})"));
            }
        }
        differences.push("its body is not Pannier's".to_owned());
        Some(format!(
            "function {} is somebody else's: {}; drop it or rename it, or use the layout custom, which makes none",
            self.name,
            differences.join(", ")
        ))
    }
}

/// Ordered by the operator itself, since an index serves nothing else. Without a filter every row passes, which no
/// condition would tell the planner; without a count it would sort all rows, so there is one always.
fn body(layout: &Layout, function: &str, id: &str) -> String {
    let extension = quote_identifier(&layout.extension.schema);
    let (sign, similarity) = match layout.metric {
        Metric::Cosine => ("<=>", "1 - "),
        Metric::Dot => ("<#>", "0 - "),
        Metric::L2 => ("<->", "0 - "),
    };
    let distance = format!("(d.embedding operator({extension}.{sign}) {function}.query_embedding)");
    let query = |condition: &str| {
        format!(
            "    return query\n\
             \x20   select d.id::{id}, d.content::text, d.metadata, d.embedding, ({similarity}{distance})::float\n\
             \x20   from {table} d\n{condition}\
             \x20   order by {distance}\n\
             \x20   limit coalesce({function}.match_count, {MOST_ROWS});\n",
            table = layout.table,
        )
    };
    format!(
        "\n{MARK}\n\
         begin\n\
         \x20 if coalesce({function}.filter, '{{}}') = '{{}}' then\n\
         {all}\
         \x20 else\n\
         \x20   -- What passes may be few: then all of them are compared. Ends with the function, which sets it too.\n\
         \x20   perform set_config('enable_seqscan', 'on', true);\n\
         {filtered}\
         \x20 end if;\n\
         end ",
        all = query(""),
        filtered = query(&format!("    where d.metadata @> {function}.filter\n")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_the_catalogue() {
        assert_eq!(name_of(&QualifiedName::new("app", "notes")).plain(), "app.match_notes");
        let long = name_of(&QualifiedName::new("app", "é".repeat(40)));
        assert!(long.name.len() <= MAX_NAME_BYTES && long.name.starts_with("match_é"), "{long}");
    }
}
