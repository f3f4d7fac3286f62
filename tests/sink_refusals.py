"""Places where no sink may be, and a word that the refusal must hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.refusals import Arguments, Desk


def sink_is_a_file(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=desk.file("notes.txt", b"mine"))


def sink_below_a_file(desk: Desk) -> Arguments:
    return desk.run(sink=desk.file("notes.txt", b"mine") / "out.zarr")


def sink_in_proc(desk: Desk) -> Arguments:
    return desk.run(sink="/proc/out.zarr")


def sink_in_a_mount_without_room(desk: Desk) -> Arguments:
    return desk.run(sink="/sys/out.zarr")


def sink_of_unknown_scheme(desk: Desk) -> Arguments:
    return desk.run(sink="nowhere://bucket/out.zarr")


def sink_in_this_process(desk: Desk) -> Arguments:
    return desk.run(sink="memory://out.zarr")


def sink_on_the_web(desk: Desk) -> Arguments:
    return desk.run(sink="https://127.0.0.1:9/out.zarr")


def foreign_folder(desk: Desk) -> Arguments:
    (desk.sink / "thesis").mkdir(parents=True)
    desk.file("out.zarr/thesis/chapter.tex", b"years of work")
    return desk.run("--overwrite")


def foreign_zarr(desk: Desk) -> Arguments:
    desk.array("out.zarr", (8, 8))
    return desk.run("--overwrite")


def foreign_resumed(desk: Desk) -> Arguments:
    desk.array("out.zarr", (8, 8))
    return desk.run("--resume")


def foreign_without_flags(desk: Desk) -> Arguments:
    (desk.sink / "thesis").mkdir(parents=True)
    return desk.run()


def sink_is_source(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=desk.source)


def sink_is_source_with_slash(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=f"{desk.source}/")


def sink_is_source_by_dots(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=f"{desk.source}/../../data/./small.zarr")


def sink_is_source_by_link(desk: Desk) -> Arguments:
    (desk.root / "link.zarr").symlink_to(desk.source)
    return desk.run("--overwrite", sink=desk.root / "link.zarr")


def sink_is_source_by_linked_folder(desk: Desk) -> Arguments:
    (desk.root / "linked").symlink_to(desk.source.parent)
    return desk.run("--overwrite", sink=desk.root / "linked" / "small.zarr")


def source_is_sink_by_link(desk: Desk) -> Arguments:
    (desk.root / "link.zarr").symlink_to(desk.source)
    return desk.run("--overwrite", source=desk.root / "link.zarr", sink=desk.source)


def sink_is_source_by_url(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=f"file://{desk.source}")


def sink_is_source_by_local_url(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=f"local://{desk.source}")


def source_is_sink_by_url(desk: Desk) -> Arguments:
    return desk.run("--overwrite", source=f"file://{desk.source}/", sink=desk.source)


def sink_is_source_relative(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=os.path.relpath(desk.source))


def sink_in_source(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=desk.source / "labels" / "new.zarr")


def sink_in_source_by_link(desk: Desk) -> Arguments:
    (desk.root / "link.zarr").symlink_to(desk.source)
    return desk.run("--overwrite", sink=desk.root / "link.zarr" / "out")


def sink_holds_source(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=desk.source.parent)


def sink_holds_source_by_dots(desk: Desk) -> Arguments:
    return desk.run("--overwrite", sink=f"{desk.source}/..")


def sink_is_default_of_a_source_without_a_name(desk: Desk) -> Arguments:
    return ["/", "-m", desk.model]


#: Case -> what the line must say.


#: Case, and what its one line must say.
REFUSED: list[tuple[Callable[..., Arguments], str]] = [
    (sink_is_a_file, "not a result of unet-dask"),
    (sink_below_a_file, "cannot be written"),
    (sink_in_proc, "cannot be written"),
    (sink_in_a_mount_without_room, "cannot be written"),
    (sink_of_unknown_scheme, "nowhere"),
    (sink_in_this_process, "memory://"),
    (sink_on_the_web, "cannot be written"),
    (foreign_folder, "not a result of unet-dask"),
    (foreign_zarr, "not a result of unet-dask"),
    (foreign_resumed, "not a result of unet-dask"),
    (foreign_without_flags, "not a result of unet-dask"),
    (sink_is_source, "is the source"),
    (sink_is_source_with_slash, "is the source"),
    (sink_is_source_by_dots, "is the source"),
    (sink_is_source_by_link, "is the source"),
    (sink_is_source_by_linked_folder, "is the source"),
    (source_is_sink_by_link, "is the source"),
    (sink_is_source_by_url, "is the source"),
    (sink_is_source_by_local_url, "is the source"),
    (source_is_sink_by_url, "is the source"),
    (sink_is_source_relative, "is the source"),
    (sink_in_source, "is the source"),
    (sink_in_source_by_link, "is the source"),
    (sink_holds_source, "is the source"),
    (sink_holds_source_by_dots, "is the source"),
    (sink_is_default_of_a_source_without_a_name, "is the source"),
]
