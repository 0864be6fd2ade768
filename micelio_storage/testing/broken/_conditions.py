"""Drivers that get conditions, versions or their own capabilities wrong on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...driver import (
    BytesLike,
    Capabilities,
    DeleteOptions,
    IfMatch,
    Key,
    KeyConflictError,
    ObjectInfo,
    StorageError,
    WriteOptions,
    check_write_condition,
    not_found,
)
from ...drivers.memory import MemoryDriver, MemoryUpload
from ._breaking import fails


@fails(
    "one_of_many_creators_wins",
    "one_of_many_successors_wins",
    "a_replacement_and_a_delete_of_one_version_exclude_each_other",
    "no_increment_of_a_counter_is_lost",
)
class LooksBeforeItLeaps(MemoryDriver):
    """Compares, lets others run, and then writes, whatever happened meanwhile."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        check_write_condition(options.condition, self._present(key))
        return await super().put(key, data, replace(options, condition=None))


@fails(
    "a_stream_looks_at_its_condition_when_it_commits",
    "one_of_many_creating_streams_wins",
)
class DecidesWhenAnUploadBegins(MemoryDriver):
    """Compares when a stream begins, not when it is published."""

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        check_write_condition(options.condition, self._present(key))
        return await super().upload(key, replace(options, condition=None))


@fails(
    "if_match_of_a_missing_object_fails",
    "streams_obey_if_match",
    "copies_obey_the_conditions_of_their_target",
    "a_refusal_tells_what_is_there",
)
class TakesMissingForAnother(MemoryDriver):
    """Says of a version of nothing that there is nothing, as S3 does, and not that the condition failed."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if isinstance(options.condition, IfMatch) and self._present(key) is None:
            raise not_found()
        return super().publish(key, data, options)


@fails(
    "copies_obey_the_conditions_of_their_target",
    "a_move_that_may_not_replace_leaves_both",
    "one_of_many_copies_that_create_wins",
    "a_refusal_tells_what_is_there",
)
class CopiesWithoutCondition(MemoryDriver):
    """Knows conditions, but not those of a copy."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(source, target, replace(options, condition=None))


@fails(
    "a_delete_can_insist_on_one_version",
    "a_replacement_and_a_delete_of_one_version_exclude_each_other",
    "a_refusal_tells_what_is_there",
    "an_error_below_a_prefix_names_the_whole_key",
)
class SwallowsRefusals(MemoryDriver):
    """Does not delete another version than it was asked to, and says that all is well."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        await super().delete(keys, options)
        return {}


@fails(
    "a_part_of_a_path_is_no_object",
    "deleting_what_is_not_there_is_fine",
    "many_objects_are_deleted_in_one_call",
    "changes_between_pages_cost_no_other_key",
    "a_storage_under_a_prefix_sees_nothing_else",
    "a_cancelled_creation_is_whole_or_not_there",
)
class FailsOnMissingKeys(MemoryDriver):
    """Says of a delete of nothing that there is nothing."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        gone: dict[Key, StorageError] = {}
        if options.if_match is None:
            gone = {key: not_found() for key in keys if self._present(key) is None}
        return {**await super().delete([key for key in keys if key not in gone], options), **gone}


@fails(
    "a_part_of_a_path_is_no_object",
    "a_key_above_objects_stands_beside_them_or_conflicts",
    "delete_leaves_names_that_look_alike",
)
class DeletesWhatBeginsSo(MemoryDriver):
    """Takes a key for a prefix."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        alike = [name for name in self._order if name.startswith(tuple(keys))]
        return await super().delete(keys if options.if_match else alike, options)


@fails(
    "an_etag_changes_whenever_the_bytes_do",
    "the_same_bytes_again_have_another_etag_where_etags_are_fresh",
    "one_of_many_successors_wins",
    "no_increment_of_a_counter_is_lost",
    "a_move_is_a_write",
)
class TakesSizesForVersions(MemoryDriver):
    """Has the same ETag for all objects of one size."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = replace(super().publish(key, data, options), etag=f'"{len(data)}"')
        self._objects[key] = replace(self._objects[key], info=info)
        return info


@fails(
    "if_absent_creates_and_never_replaces",
    "streams_obey_if_absent",
    "a_stream_looks_at_its_condition_when_it_commits",
    "copies_obey_the_conditions_of_their_target",
    "a_move_that_may_not_replace_leaves_both",
    "one_of_many_creators_wins",
    "one_of_many_creating_streams_wins",
    "one_of_many_copies_that_create_wins",
    "no_increment_of_a_counter_is_lost",
    "an_update_gets_what_is_there_and_keeps_what_belongs_to_it",
    "an_uploaded_file_obeys_if_absent",
    "a_cancelled_update_counts_once_or_not_at_all",
    "a_refusal_tells_what_is_there",
    "an_error_has_the_errno_of_its_kind",
    "an_update_keeps_content_type_and_headers",
    "what_fails_of_many_is_told_and_the_rest_is_stored",
)
class DoesWhatItDenies(MemoryDriver):
    """Says that it has no `if_absent`, and takes it all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(if_absent=False)


@fails(
    "a_key_below_an_object_stands_beside_it_or_conflicts",
    "a_key_above_objects_stands_beside_them_or_conflicts",
    "a_step_that_stores_many_stores_each_as_its_own_call_would",
)
class NestsWhatItDenies(MemoryDriver):
    """Says that "a" and "a/b" conflict, and keeps both."""

    def __init__(self) -> None:
        super().__init__(nested_keys=False)

    def _check_conflict(self, key: Key) -> None:
        pass


@fails("the_place_of_deleted_objects_is_free")
class LeavesDirectoriesBehind(MemoryDriver):
    """Never forgets that something was below a key, as a disk on which nobody removes empty directories."""

    def __init__(self) -> None:
        super().__init__(nested_keys=False)
        self._directories: set[str] = set()

    def _check_conflict(self, key: Key) -> None:
        super()._check_conflict(key)
        if key in self._directories:
            raise KeyConflictError("there is a directory")
        parts = key.split("/")
        self._directories.update("/".join(parts[:depth]) for depth in range(1, len(parts)))


@fails("a_url_is_signed_or_refused")
class PromisesSignedURLs(MemoryDriver):
    """Says that it signs URLs, and cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(signed_urls=True)


@fails("a_refusal_tells_what_is_there")
class TellsOfAnotherObject(MemoryDriver):
    """Says something wrong of the object that stands against a condition."""

    def _present(self, key: Key) -> ObjectInfo | None:
        present = super()._present(key)
        return replace(present, size=0) if present else None
