"""Which test shows which case of docs/guarantees.md: as its marker says, or as said here where none can stand.

The checks of the conformance kit know no pytest, and a state machine is no function. Tests of a file are named
`file::function`, below `tests`; checks `kit: name`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).parent.parent
# Of each letter's numbers:
LAST = {
    "K": 28,
    "O": 75,
    "D": 34,
    "C": 18,
    "S": 38,
    "X": 14,
    "R": 13,
    "Z": 10,
    "L": 12,
    "N": 6,
    "V": 12,
    "W": 19,
    "Y": 11,
    "Q": 8,
    "F": 7,
    "T": 8,
    "U": 11,
    "B": 10,
    "H": 15,
    "I": 7,
    "E": 8,
    "G": 9,
    "A": 4,
    "M": 6,
}

NUMBERS = tuple(f"{letter}{number}" for letter, last in LAST.items() for number in range(1, last + 1))

KIT: Mapping[str, tuple[str, ...]] = {
    "G8": (
        "the_extension_says_the_content_type",
        "a_content_type_that_was_given_is_kept_whatever_the_extension",
    ),
    "K1": (
        "bad_keys_are_refused_by_all_that_reads",
        "bad_keys_are_refused_by_all_that_writes",
        "bad_keys_are_refused_by_all_that_moves_or_deletes",
    ),
    "K2": ("what_is_no_text_is_no_key",),
    "K4": ("prefixes_that_begin_no_key_are_refused", "a_prefix_is_no_pattern"),
    "K5": ("prefixes_that_begin_some_key_are_taken", "a_prefix_is_no_pattern"),
    "K6": ("all_good_keys_live_together", "all_good_keys_can_be_copied_to_and_deleted"),
    "K8": ("the_length_of_a_key_counts_every_prefix", "keys_are_as_long_as_the_capabilities_say"),
    "K12": ("composed_and_decomposed_letters_are_different",),
    "K13": ("upper_and_lower_case_are_different_letters",),
    "K15": ("percent_signs_and_blanks_mean_themselves",),
    "K16": ("percent_signs_and_blanks_mean_themselves", "copies_find_names_of_any_letters"),
    "O1": ("small_objects_come_back_as_they_were", "large_objects_come_back_as_they_were"),
    "O2": ("a_missing_object_is_not_found", "an_error_says_where_it_happened"),
    "O3": ("a_missing_object_is_not_found",),
    "O4": ("exists_is_true_for_what_is_there_alone",),
    "O5": ("put_returns_what_head_says", "a_stream_returns_what_head_says"),
    "O6": ("a_shorter_object_leaves_no_tail_of_a_longer_one", "an_etag_changes_whenever_the_bytes_do"),
    "O7": ("the_same_bytes_again_have_another_etag_where_etags_are_fresh",),
    "O8": (
        "bytes_bytearray_and_memoryview_are_data",
        "a_memoryview_of_any_shape_is_stored_as_its_bytes",
        "what_is_no_bytes_is_a_type_error",
    ),
    "O9": ("a_buffer_is_the_callers_again_after_put",),
    "O10": ("an_object_of_no_bytes_is_an_object", "every_range_of_an_empty_object_is_empty"),
    "O11": ("delete_takes_an_object_out_of_sight",),
    "O12": ("deleting_what_is_not_there_is_fine",),
    "O13": ("deleting_an_object_many_times_at_once_is_fine",),
    "O14": ("delete_leaves_names_that_look_alike", "a_part_of_a_path_is_no_object"),
    "O15": ("delete_takes_an_object_out_of_sight", "the_place_of_deleted_objects_is_free"),
    "O16": (
        "delete_prefix_removes_what_begins_so_and_counts",
        "what_is_no_key_below_a_prefix_stays_when_all_is_deleted_there",
        "many_objects_are_deleted_in_one_call",
        "ten_thousand_keys_are_listed_in_order",
    ),
    "O17": ("deleting_everything_has_to_be_said",),
    "O18": ("an_object_deleted_while_it_is_read_is_not_cut",),
    "O19": (
        "a_range_has_the_bytes_of_a_slice",
        "a_reader_of_a_range_gives_what_get_gives",
        "an_offset_behind_the_end_is_a_range_error",
        "a_range_that_is_none_is_refused",
    ),
    "O20": ("a_range_of_a_large_object_has_the_bytes_of_a_slice",),
    "O21": ("chunks_are_as_long_as_asked_for_at_most", "read_gives_as_many_bytes_as_asked_for"),
    "O22": ("a_reader_can_be_left_in_the_middle", "a_reader_is_closed_with_its_block"),
    "O23": ("a_reader_can_be_left_in_the_middle",),
    "O24": ("two_readers_do_not_disturb_each_other",),
    "O25": ("who_knows_the_object_is_told_so", "a_read_can_insist_on_one_version"),
    "O27": (
        "an_async_iterable_is_stored_as_one_object",
        "a_stream_of_single_bytes_is_one_object",
        "empty_chunks_end_nothing",
        "a_stream_of_nothing_is_an_empty_object",
        "an_object_with_async_read_is_a_source",
        "a_source_that_would_block_is_refused",
    ),
    "O28": ("a_source_that_fails_changes_nothing", "a_source_that_reads_and_fails_changes_nothing"),
    "O31": ("an_upload_is_invisible_until_it_is_whole",),
    "O33": (
        "a_source_is_closed_however_the_put_ends",
        "a_put_that_waits_for_its_source_can_be_cancelled",
    ),
    "O34": ("an_object_replaced_while_it_is_read_is_not_mixed", "an_upload_is_invisible_until_it_is_whole"),
    "O35": ("if_absent_creates_and_never_replaces",),
    "O36": ("if_match_replaces_one_version_alone", "what_is_no_etag_is_refused"),
    "O37": ("if_match_of_a_missing_object_fails",),
    "O38": ("an_etag_is_quoted_and_says_no_more_than_itself", "what_is_no_etag_is_refused"),
    "O39": ("the_same_bytes_again_have_another_etag_where_etags_are_fresh",),
    "O41": ("streams_obey_if_absent", "streams_obey_if_match", "a_stream_looks_at_its_condition_when_it_commits"),
    "O42": ("an_etag_changes_whenever_the_bytes_do",),
    "O43": (
        "a_delete_can_insist_on_one_version",
        "a_replacement_and_a_delete_of_one_version_exclude_each_other",
    ),
    "O44": ("where_nothing_is_nothing_is_listed",),
    "O45": ("keys_are_listed_in_the_order_of_their_bytes",),
    "O46": ("a_prefix_is_the_beginning_of_a_text",),
    "O47": ("a_delimiter_folds_what_goes_on_behind_it", "pages_that_fold_are_the_whole_list"),
    "O48": ("a_prefix_is_the_beginning_of_a_text",),
    "O49": ("a_listing_starts_behind_any_text",),
    "O50": ("pages_of_any_size_are_the_whole_list", "a_page_can_follow_a_start", "only_the_last_page_has_no_cursor"),
    "O51": ("changes_between_pages_cost_no_other_key", "a_whole_directory_may_go_between_pages"),
    "O52": ("ten_thousand_keys_are_listed_in_order",),
    "O54": ("keys_that_stay_are_listed_while_others_come_and_go",),
    "O55": ("keys_that_stay_are_listed_while_others_come_and_go",),
    "O56": ("an_entry_says_what_head_says", "an_entry_of_metadata_says_what_head_says"),
    "O57": ("a_listing_can_be_left_in_the_middle",),
    "O58": (
        "a_copy_has_the_same_bytes",
        "copying_what_is_missing_changes_nothing",
        "a_copy_onto_itself_changes_nothing",
        "a_copy_replaces_all_of_its_target",
    ),
    "O59": ("a_copy_goes_its_own_way",),
    "O60": ("copies_find_names_of_any_letters", "all_good_keys_can_be_copied_to_and_deleted"),
    "O61": ("a_copy_has_the_same_bytes",),
    "O62": (
        "a_key_below_an_object_stands_beside_it_or_conflicts",
        "a_key_above_objects_stands_beside_them_or_conflicts",
        "a_part_of_a_path_is_no_object",
    ),
    "O63": (
        "metadata_comes_back_as_it_was",
        "two_thousand_bytes_of_metadata_are_kept",
        "metadata_that_cannot_be_kept_is_refused",
    ),
    "O64": ("a_content_type_comes_back_and_has_a_default", "a_content_type_that_is_none_is_refused"),
    "O65": ("modified_is_the_time_of_the_write_in_utc",),
    "D34": ("a_move_is_a_write",),
    "O75": (
        "many_objects_are_stored_and_read_in_one_call",
        "what_fails_of_many_is_told_and_the_rest_is_stored",
    ),
    "O67": (
        "an_error_has_the_errno_of_its_kind",
        "an_error_says_where_it_happened",
        "an_error_below_a_prefix_names_the_whole_key",
    ),
    "O69": (
        "a_closed_storage_refuses_every_call",
        "a_storage_can_be_closed_twice_and_opened_again",
        "closing_ends_readers_and_writers",
    ),
    "D33": ("a_deadline_in_the_middle_of_a_write_is_told_truly",),
    "O70": ("a_storage_under_a_prefix_sees_nothing_else",),
    "C2": ("no_increment_of_a_counter_is_lost",),
    "C3": ("one_of_many_creators_wins", "one_of_many_creating_streams_wins", "one_of_many_successors_wins"),
    "C8": ("nobody_reads_a_part_of_a_write", "bytes_and_metadata_change_at_the_same_moment"),
    "C9": ("a_delete_and_a_put_beside_it_do_not_meet",),
    "C13": ("the_last_of_two_uploads_wins_whole",),
    "C14": (
        "a_source_may_use_the_storage_itself",
        "a_put_during_an_upload_is_replaced_by_it",
        "writes_under_way_end_when_the_storage_is_closed",
    ),
    "X1": (
        "a_cancelled_put_never_comes_back",
        "a_cancelled_large_put_never_comes_back",
        "a_cancelled_stream_never_comes_back",
        "a_cancelled_creation_is_whole_or_not_there",
        "a_cancelled_copy_is_whole_or_not_there",
        "a_cancelled_move_loses_nothing",
        "a_cancelled_put_of_many_leaves_whole_objects",
        "a_cancelled_delete_is_done_or_not",
        "a_cancelled_opening_or_closing_can_be_tried_again",
    ),
    "X5": ("a_cancelled_condition_holds_nobody_up",),
    "X6": ("a_cancelled_stream_never_comes_back",),
    "X8": ("the_others_of_a_group_are_cancelled_cleanly",),
    "X9": ("a_cancelled_stream_never_comes_back",),
    "X11": ("many_cancelled_at_once_leave_the_others_alone", "a_cancelled_read_gives_everything_back"),
    "X13": ("a_cancelled_writer_never_comes_back", "a_cancelled_update_counts_once_or_not_at_all"),
    "R6": ("many_readers_are_open_at_once",),
    "Z4": ("a_url_is_signed_or_refused",),
    "Z9": ("what_is_no_etag_is_refused", "a_content_type_that_is_none_is_refused"),
    "Z10": ("a_storage_under_a_prefix_sees_nothing_else", "a_storage_under_a_prefix_is_the_same_storage"),
    "N5": ("a_cursor_is_good_for_its_own_listing_alone",),
    "E1": ("a_storage_left_on_a_loop_that_ended_is_closed_on_another",),
}

# Tests that show, beside what they are there for, a case of another field than theirs; and machines.
BESIDES: Mapping[str, tuple[str, ...]] = {
    "K6": ("test_s3_urls.py::test_every_key_that_is_kept_can_be_read_with_a_url",),
    "K15": ("test_s3_urls.py::test_what_is_under_a_prefix_signs_nothing_above_it",),
    "K16": (
        "test_s3_urls.py::test_every_key_that_is_kept_can_be_read_with_a_url",
        "test_s3_urls.py::test_every_key_that_is_kept_can_be_written_with_a_url",
    ),
    "O16": ("faults/test_broken_stores.py::test_keys_that_fail_in_a_delete_of_many_are_tried_again_and_then_named",),
    "O28": ("test_s3_cancellation.py::test_a_source_that_fails_leaves_nothing_on_a_real_server",),
    "O29": ("test_s3_urls.py::test_a_put_is_as_long_as_it_is_bound_to_be",),
    "O55": ("faults/test_races.py::test_a_listing_of_what_comes_and_goes_has_each_key_that_stays_once",),
    "O61": ("test_s3_bounds.py::test_the_parts_of_a_copy_are_the_whole_object",),
    "O68": ("test_model.py::TestSameEverywhere", "test_model.py::TestSameOnS3"),
    "O74": ("test_model.py::TestSameEverywhere", "test_model.py::TestSameOnS3"),
    "Z2": (
        "test_s3_config.py::test_a_value_that_cannot_be_meant_says_what_to_set",
        "test_s3_config.py::test_a_config_object_is_checked_as_well",
        "test_s3_config.py::test_an_endpoint_that_others_may_listen_to_is_warned_of",
        "faults/test_broken_stores.py::test_nothing_is_sent_to_where_a_redirect_leads",
    ),
    "Z3": (
        "test_s3_credentials.py::test_nothing_secret_is_shown_by_what_can_be_shown",
        "test_s3_urls.py::test_a_url_has_the_access_key_in_it_and_never_the_secret_one",
        "test_doctor.py::test_an_endpoint_is_shown_without_a_password",
    ),
    "Z4": (
        "test_s3_urls.py::test_a_url_ends_when_it_was_said_to",
        "test_s3_urls.py::test_a_url_is_for_one_method",
        "test_s3_urls.py::test_a_url_that_was_changed_is_worth_nothing",
        "test_s3_urls.py::test_a_put_stores_the_content_type_it_is_bound_to_and_no_other",
        "test_s3_urls.py::test_what_no_url_can_allow_is_refused_before_anything_is_signed_or_sent",
        "test_s3_urls.py::test_what_is_under_a_prefix_signs_nothing_above_it",
    ),
    "Z5": (
        "test_s3_credentials.py::test_half_a_pair_in_the_environment_is_no_pair",
        "test_s3_credentials.py::test_half_a_pair_in_a_profile_is_no_pair",
        "test_s3_config.py::test_an_empty_variable_is_none_at_all",
    ),
    "Z6": ("faults/test_odd_disks.py::test_directories_and_files_are_the_owners_alone_whatever_the_umask",),
    "Z7": ("test_doctor.py::test_what_is_not_allowed_is_named_with_its_action",),
    "Z9": ("test_s3_urls.py::test_what_no_url_can_allow_is_refused_before_anything_is_signed_or_sent",),
}


def shown() -> dict[str, list[str]]:
    """The names of the tests for each number that any of them has."""
    found: dict[str, list[str]] = {}
    for number, name in (*_marked(), *_said()):
        names = found.setdefault(number, [])
        if name not in names:
            names.append(name)
    return found


def _said() -> Iterator[tuple[str, str]]:
    for number, names in BESIDES.items():
        yield from ((number, name) for name in names)
    for number, names in KIT.items():
        yield from ((number, f"kit: {name}") for name in names)


def _marked() -> Iterator[tuple[str, str]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_text())
        tests = [node for node in module.body if is_test(node)]
        for_all = [
            number
            for node in module.body
            if not is_test(node) and _names(node) == "pytestmark"
            for number in cases(node)
        ]
        for test in tests:
            name = f"{path.relative_to(TESTS)}::{_names(test)}"
            yield from ((number, name) for number in (*for_all, *cases(test)))


def is_test(node: ast.stmt) -> bool:
    """Whether it is a test function, a class of tests, or a name that is given to one."""
    return _names(node).startswith(("test_", "Test"))


def _names(node: ast.stmt) -> str:
    """What a statement of a module gives a name to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def cases(node: ast.AST) -> Iterator[str]:
    """The numbers in all `pytest.mark.case(...)` of a node."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "pytest.mark.case":
            for number in inner.args:
                assert isinstance(number, ast.Constant), f"a case that is no text: {ast.unparse(inner)}"
                yield str(number.value)


def names_of_tests() -> set[str]:
    """All tests that there are, as the document names them."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        module = ast.parse(path.read_text())
        found |= {f"{path.relative_to(TESTS)}::{_names(node)}" for node in module.body if is_test(node)}
    return found
