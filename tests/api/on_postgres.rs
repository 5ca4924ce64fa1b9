//! The tests of the API again, over collections that stand in Postgres.

use super::server::on_postgres;
use crate::support::postgres::Version;

/// Each of these tests on each version.
macro_rules! again {
    ($($(#[$attribute:meta])* $module:ident { $($test:ident),* $(,)? })*) => {
        mod on_16 { $($(#[$attribute])* mod $module { $(#[test]
            fn $test() {
                super::super::on_postgres(super::super::Version::V16, super::super::super::$module::$test);
            })* })* }
        mod on_18 { $($(#[$attribute])* mod $module { $(#[test]
            fn $test() {
                super::super::on_postgres(super::super::Version::V18, super::super::super::$module::$test);
            })* })* }
    };
}

again! {
    documents {
        what_is_written_is_read_back,
        a_document_is_replaced_whole_and_a_retry_has_one_effect,
        ids_of_any_text_work_in_the_path,
        pages_follow_each_other_by_id,
        parameters_of_a_listing_are_checked,
        documents_are_counted_exactly,
        documents_are_deleted_by_ids_or_by_filter,
    }
    limits {
        answers_carry_so_much_and_no_more,
    }
    search {
        the_nearest_come_first_with_their_scores,
        a_document_is_no_hit_of_its_own,
        vectors_may_be_base64,
        threshold_filter_and_include_narrow_the_answer,
        what_was_deleted_is_no_hit,
        a_collection_without_a_model_says_so,
        searches_that_cannot_be_answered_are_refused,
    }
    filters {
        points_are_found_by_distance,
        filters_that_cannot_be_meant_are_refused_everywhere,
        lists_and_deletes_go_by_the_filter,
    }
    vectors {
        documents_that_were_embedded_before_are_not_embedded_again,
        vectors_that_came_with_documents_can_be_asked_for,
    }
    templates {
        a_template_is_created_shown_and_tried,
    }
    collections {
        another_definition_is_a_conflict_and_changes_nothing,
        names_that_mean_something_elsewhere_are_names,
        collections_are_listed_by_name_and_dropped_with_their_documents,
    }
    import {
        good_lines_get_in_and_bad_ones_are_reported,
        many_documents_in_small_chunks_get_in_and_the_last_of_an_id_stands,
        one_refused_document_does_not_keep_the_others_of_its_batch_out,
        an_import_that_ends_early_says_from_which_line_to_go_on,
    }
    #[cfg(feature = "text")]
    pages {
        pages_by_words_hold_every_one_of_many_equals_once,
        pages_by_cursor_of_both_rankings_hold_every_candidate_once,
        the_last_page_says_so,
        counting_values_moves_no_hit,
        values_are_counted_over_what_a_threshold_leaves,
        pages_by_distance_hold_every_document_once,
    }
    patches {
        a_part_of_a_document_is_changed_and_the_rest_stays,
        a_patch_that_cannot_be_meant_is_refused_with_the_way_out,
        a_write_that_expects_another_seq_changes_nothing,
        of_patches_at_the_same_time_none_is_lost,
        only_a_new_text_is_embedded,
        of_patches_whose_text_is_made_of_all_none_is_lost,
    }
    bad_input {
        a_rejected_batch_changes_nothing,
        declared_fields_hold,
        an_unknown_collection_is_named_on_every_route,
        a_search_that_makes_no_sense_says_what_to_change,
    }
    #[cfg(feature = "text")]
    ranking {
        words_are_found_and_marked,
        a_hybrid_search_takes_words_and_a_vector,
        like_and_unlike_pull_and_push,
        groups_facets_and_diversity_arrange_the_hits,
        pages_follow_each_other_and_hold_every_hit_once,
        a_batch_answers_each_or_none,
        what_does_not_go_together_is_refused_with_the_way_out,
    }
    #[cfg(feature = "text")]
    rerank {
        hits_are_the_best_by_the_cross_encoder,
        what_cannot_be_reranked_is_refused,
    }
}
