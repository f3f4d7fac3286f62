"""What a careless or hostile user does: one line, the right exit code, and everything as it was before.

Most cases are refused before a worker starts; then the whole folder around them must stay the same, byte for
byte. What can only be seen while the run goes on, such as a damaged chunk, ends with all other regions written.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr
from distributed import LocalCluster
from safetensors.numpy import load_file, save_file

from unet_dask.io import place as places

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unet_dask.cluster import Cluster

Arguments = list[str | Path]


@dataclass(frozen=True)
class Desk:
    """A folder with a source and a model, and the place where a sink could be."""

    root: Path
    model: Path

    @property
    def source(self) -> Path:
        return self.root / "data" / "small.zarr"

    @property
    def sink(self) -> Path:
        return self.root / "out.zarr"

    def run(
        self, *more: str | Path, source: str | Path = "", sink: str | Path = "", model: str | Path = ""
    ) -> Arguments:
        """Return the arguments of a run that would succeed but for what is given."""
        return [source or self.source, "-o", sink or self.sink, "-m", model or self.model, *more]

    def array(self, name: str, shape: tuple[int, ...], dtype: str = "u1", **options: Any) -> Path:
        path = self.root / name
        chunks = tuple(min(32, size) or 1 for size in shape)
        zarr.create_array(str(path), shape=shape, dtype=dtype, chunks=chunks, **options)
        return path

    def file(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.write_bytes(content)
        return path


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path]) -> Desk:
    made = Desk(tmp_path, tmp_path / "tiny.safetensors")
    shutil.copy(tiny_model, made.model)
    make_source(made.source)
    return made


class Canary:
    """Pickles into code that leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def missing(desk: Desk) -> Arguments:
    return desk.run(source=desk.root / "missing.zarr")


def not_zarr(desk: Desk) -> Arguments:
    return desk.run(source=desk.file("image.zarr", b"II*\0not really"))


def empty_folder(desk: Desk) -> Arguments:
    (desk.root / "empty.zarr").mkdir()
    return desk.run(source=desk.root / "empty.zarr")


def several_arrays(desk: Desk) -> Arguments:
    group = zarr.open_group(str(desk.root / "group.zarr"), mode="w")
    for name in "ab":
        group.create_array(name, shape=(32, 32), dtype="u1")
    return desk.run(source=desk.root / "group.zarr")


def missing_key(desk: Desk) -> Arguments:
    return desk.run("-k", "nothing/here")


def three_axes_for_two(desk: Desk) -> Arguments:
    return desk.run("--axes", "zyx")


def unknown_axes(desk: Desk) -> Arguments:
    return desk.run("--axes", "yq")


def double_axes(desk: Desk) -> Arguments:
    return desk.run("--axes", "yy")


def channel_out_of_range(desk: Desk) -> Arguments:
    return desk.run("--channels", "3")


def channels_are_words(desk: Desk) -> Arguments:
    return desk.run("--channels", "red,green")


def colours_without_axes(desk: Desk) -> Arguments:
    return desk.run(source=desk.array("rgb.zarr", (40, 40, 3)))


def rgb_with_grey_model(desk: Desk) -> Arguments:
    return desk.run("--axes", "yxc", source=desk.array("rgb.zarr", (40, 40, 3)))


def two_channel_model(desk: Desk, make_model: Callable[..., Path]) -> Arguments:
    return desk.run(model=make_model(desk.root / "two.safetensors", channels=2))


def three_dimensional_model(desk: Desk, make_model: Callable[..., Path]) -> Arguments:
    return desk.run(model=make_model(desk.root / "deep.safetensors", dims=3))


def complex_values(desk: Desk) -> Arguments:
    return desk.run(source=desk.array("complex.zarr", (40, 40), "c8"))


def text_values(desk: Desk) -> Arguments:
    return desk.run(source=desk.array("text.zarr", (40, 40), "<U3", zarr_format=2))


def level_of_an_array(desk: Desk) -> Arguments:
    return desk.run("--level", "1")


def level_is_negative(desk: Desk) -> Arguments:
    return desk.run("--level", "-1")


def roi_outside(desk: Desk) -> Arguments:
    return desk.run("--roi", "0:50,90:200")


def roi_empty(desk: Desk) -> Arguments:
    return desk.run("--roi", "10:10,0:96")


def roi_backwards(desk: Desk) -> Arguments:
    return desk.run("--roi", "20:10,0:96")


def roi_of_three(desk: Desk) -> Arguments:
    return desk.run("--roi", "0:1,0:96,0:96")


def roi_of_words(desk: Desk) -> Arguments:
    return desk.run("--roi", "all,all")


def tile_off_the_lattice(desk: Desk) -> Arguments:
    return desk.run("--tile", "30,30")


def tile_of_one(desk: Desk) -> Arguments:
    return desk.run("--tile", "32")


def tile_of_nothing(desk: Desk) -> Arguments:
    return desk.run("--tile", "0,32")


def region_off_the_chunks(desk: Desk) -> Arguments:
    return desk.run("--region", "40,40", "--chunks", "32,32")


def region_below_the_halo(desk: Desk) -> Arguments:
    return desk.run("--region", "4,4", "--chunks", "4,4")


def chunks_of_three(desk: Desk) -> Arguments:
    return desk.run("--chunks", "8,8,8")


def unknown_product(desk: Desk) -> Arguments:
    return desk.run("--products", "classes,magic")


def no_product(desk: Desk) -> Arguments:
    return desk.run("--products", ",")


def unknown_precision(desk: Desk) -> Arguments:
    return desk.run("--precision", "float8")


def slow_precision(desk: Desk) -> Arguments:
    return desk.run("--device", "cpu", "--precision", "float16")


def absent_gpu(desk: Desk) -> Arguments:
    return desk.run("--device", "cuda")


def unknown_flag(desk: Desk) -> Arguments:
    return desk.run("--colour", "blue")


def no_source(desk: Desk) -> Arguments:
    return ["-o", desk.sink]


def no_workers(desk: Desk) -> Arguments:
    return desk.run("--workers", "0")


def negative_workers(desk: Desk) -> Arguments:
    return desk.run("--workers", "-1")


def workers_beyond_memory(desk: Desk) -> Arguments:
    return desk.run("--workers", "4000", "--memory", "8GiB")


def no_threads(desk: Desk) -> Arguments:
    return desk.run("--threads", "0")


def too_little_memory(desk: Desk) -> Arguments:
    return desk.run("--memory", "100MB")


def memory_of_words(desk: Desk) -> Arguments:
    return desk.run("--memory", "plenty")


def resume_and_overwrite(desk: Desk) -> Arguments:
    return desk.run("--resume", "--overwrite")


def scheduler_twice(desk: Desk) -> Arguments:
    return desk.run("--scheduler", "tcp://127.0.0.1:9", "--scheduler-file", desk.file("s.json", b"{}"))


def settings_not_toml(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b"workers = = 2"))


def settings_not_text(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b"\xff\xfe\x00"))


def settings_missing(desk: Desk) -> Arguments:
    return desk.run("--config", desk.root / "absent.toml")


def settings_unknown(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b"wrokers = 2"))


def settings_wrong_type(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b'workers = "many"'))


def settings_fraction(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b"workers = 1.5"))


def settings_table(desk: Desk) -> Arguments:
    return desk.run("--config", desk.file("run.toml", b"[segment]\nworkers = 2"))


def unknown_bundled(desk: Desk) -> Arguments:
    return desk.run(model="mitochondria")


def folder_as_model(desk: Desk) -> Arguments:
    return desk.run(model=desk.root)


def empty_model(desk: Desk) -> Arguments:
    return desk.run(model=desk.file("empty.safetensors", b""))


def torch_pickle(desk: Desk) -> Arguments:
    torch.save({"weight": torch.zeros(3)}, desk.root / "net.pt")
    return desk.run(model=desk.root / "net.pt")


def hostile_pickle(desk: Desk) -> Arguments:
    return desk.run(model=desk.file("net.pth", pickle.dumps(Canary(desk.root / "canary"))))


def hostile_pickle_in_disguise(desk: Desk) -> Arguments:
    return desk.run(model=desk.file("net.safetensors", pickle.dumps(Canary(desk.root / "canary"))))


def truncated_model(desk: Desk) -> Arguments:
    return desk.run(model=desk.file("cut.safetensors", desk.model.read_bytes()[:-100]))


def foreign_model(desk: Desk) -> Arguments:
    save_file({"weight": np.zeros(3, np.float32)}, desk.root / "foreign.safetensors")
    return desk.run(model=desk.root / "foreign.safetensors")


def edited(**changes: Any) -> Callable[[Desk], Arguments]:
    """Return a case whose model says something else of itself."""

    def case(desk: Desk) -> Arguments:
        raw = desk.model.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
        header = json.loads(metadata["unet_dask"])
        for name, value in changes.items():
            holder, _, field = name.rpartition("__")
            (header[holder] if holder else header)[field] = value
        path = desk.root / "edited.safetensors"
        save_file(load_file(desk.model), path, metadata | {"unet_dask": json.dumps(header)})
        return desk.run(model=path)

    return case


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
REFUSED: list[tuple[Callable[..., Arguments], str]] = [
    (missing, "missing.zarr"),
    (not_zarr, "image.zarr"),
    (empty_folder, "empty.zarr"),
    (several_arrays, "a.*b"),
    (missing_key, "nothing/here"),
    (three_axes_for_two, "zyx"),
    (unknown_axes, "yq"),
    (double_axes, "yy"),
    (channel_out_of_range, "Channels 3"),
    (channels_are_words, "red,green"),
    (colours_without_axes, "--axes yxc"),
    (rgb_with_grey_model, "--channels"),
    (two_channel_model, "2 channel"),
    (three_dimensional_model, "without z"),
    (complex_values, "complex"),
    (text_values, "text.zarr"),
    (level_of_an_array, "level"),
    (level_is_negative, "level"),
    (roi_outside, "90:200 along x"),
    (roi_empty, "10:10 along y"),
    (roi_backwards, "20:10 along y"),
    (roi_of_three, "3 intervals"),
    (roi_of_words, "'all' is not an interval"),
    (tile_off_the_lattice, "multiple of 4"),
    (tile_of_one, "1 sizes"),
    (tile_of_nothing, "'0,32' is not a list of sizes"),
    (region_off_the_chunks, "multiples of 32"),
    (region_below_the_halo, "at least 2"),
    (chunks_of_three, "8 x 8 x 8"),
    (unknown_product, "'magic'"),
    (no_product, "product"),
    (unknown_precision, "float8"),
    (slow_precision, "float16"),
    (absent_gpu, "cuda"),
    (unknown_flag, "--colour"),
    (no_source, "SOURCE"),
    (no_workers, "not 0"),
    (negative_workers, "not -1"),
    (workers_beyond_memory, "4000 workers"),
    (no_threads, "threads"),
    (too_little_memory, r"--memory 0\.\d+GiB"),
    (memory_of_words, "plenty"),
    (resume_and_overwrite, "not both"),
    (scheduler_twice, "--scheduler"),
    (settings_not_toml, "not TOML"),
    (settings_not_text, "cannot be read"),
    (settings_missing, "cannot be read"),
    (settings_unknown, "wrokers"),
    (settings_wrong_type, "many"),
    (settings_fraction, "1.5"),
    (settings_table, "segment"),
    (unknown_bundled, "neither a model file nor a bundled model"),
    (folder_as_model, "is a folder"),
    (empty_model, "not a safetensors"),
    (torch_pickle, "can run code"),
    (hostile_pickle, "can run code"),
    (hostile_pickle_in_disguise, "can run code"),
    (truncated_model, "not a safetensors"),
    (foreign_model, "another program"),
    (edited(network__classes=3), "3 classes"),
    (edited(class_names=["only"]), "2 classes needs as many names"),
    (edited(halo=[4, 4]), "halo"),
    (edited(network__width=10**9), "width"),
    (edited(network__attention=True), "attention"),
    (edited(format="unet-dask/99"), "unet-dask/99"),
    (edited(normalisation__scale=[0.0]), "scale"),
    (edited(network__depth="4"), "depth"),
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


def _id(case: object) -> str | None:
    return str(getattr(case, "__qualname__", case)).split(".")[0] if callable(case) else None


@pytest.mark.parametrize(("case", "says"), REFUSED, ids=_id)
def test_refused_before_anything_is_touched(
    case: Callable[..., Arguments],
    says: str,
    desk: Desk,
    make_model: Callable[..., Path],
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    wants_model = "make_model" in case.__annotations__
    arguments = case(desk, make_model) if wants_model else case(desk)
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *arguments)
    assert outcome.lines[:1] == outcome.lines, outcome.stderr
    assert outcome.stderr.startswith("unet-dask: ")
    assert re.search(says, outcome.stderr)
    assert "error of unet-dask itself" not in outcome.stderr
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert hash_tree(desk.root) == before


def flags_for(cluster: Cluster) -> list[str]:
    """Return flags that cut the small source into nine regions on the shared workers."""
    sizes = "--region 32,32 --tile 32,32 --chunks 32,32 --precision float32 -q"
    return ["--scheduler", str(cluster.client.scheduler.address), *sizes.split()]


def sink_classes(desk: Desk) -> NDArray[Any]:
    return np.asarray(zarr.open_array(str(desk.sink / "classes" / "0"))[...])


def truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-9])


def empty(chunk: Path) -> None:
    chunk.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, empty])
def test_damaged_chunk_fails_the_regions_that_see_it_and_no_other(
    damage: Callable[[Path], None],
    desk: Desk,
    cluster: Cluster,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    damage(desk.source / "c" / "0" / "0")
    before = hash_tree(desk.source)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert outcome.code == 4
    assert len(outcome.lines) == 1, outcome.stderr
    assert outcome.stderr.startswith("unet-dask: 4 of 9 regions failed, all others are written: ")
    assert "[y 0:32, x 0:32]" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    failed = np.zeros((96, 96), bool)
    failed[:64, :64] = True
    np.testing.assert_array_equal(sink_classes(desk) == 255, failed)
    assert hash_tree(desk.source) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named_by_its_place(
    value: float, desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "float.zarr", dtype="float32")
    zarr.open_array(str(source), mode="r+")[90, 91] = value
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), source=source))
    assert outcome.code == 4
    assert len(outcome.lines) == 1, outcome.stderr
    assert "y=90, x=91" in outcome.stderr
    failed = np.zeros((96, 96), bool)
    failed[64:, 64:] = True
    np.testing.assert_array_equal(sink_classes(desk) == 255, failed)


def test_nan_is_zero_where_the_user_says_so(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "float.zarr", dtype="float32")
    zarr.open_array(str(source), mode="r+")[90, 91] = np.nan
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--nan", "zero", source=source)).code == 0
    found = sink_classes(desk)
    zarr.open_array(str(source), mode="r+")[90, 91] = 0
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite", source=source)).code == 0
    np.testing.assert_array_equal(sink_classes(desk), found)


@pytest.mark.xfail(strict=False, reason="layout._cut makes tiles of no voxels for an axis of no voxels")
def test_axis_of_no_voxels_gives_an_empty_result(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "void.zarr", (0, 96))
    outcome = call_cli("segment", *desk.run("--scheduler", cluster.client.scheduler.address, source=source))
    assert outcome.code == 0, outcome.stderr
    assert sink_classes(desk).shape == (0, 96)


def test_flipped_bit_in_a_model_is_found_before_it_computes(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    content = bytearray(desk.model.read_bytes())
    content[-5] ^= 4
    desk.model.write_bytes(content)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert outcome.code == 2
    assert len(outcome.lines) == 1, outcome.stderr
    assert "is damaged" in outcome.stderr
    assert not desk.sink.exists()


def test_existing_result_is_kept_without_a_flag(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "--resume" in outcome.stderr
    assert hash_tree(desk.root) == before


@pytest.mark.parametrize(
    "flags", [["--memory", "1MB"], ["--axes", "zyx"], ["--tile", "3,3"]], ids=["memory", "axes", "tile"]
)
def test_old_result_is_kept_if_the_new_run_cannot_be_planned(
    flags: list[str],
    desk: Desk,
    cluster: Cluster,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    before = hash_tree(desk.root)
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite", *flags)).code == 2
    assert hash_tree(desk.root) == before


def test_result_with_something_else_in_it_is_not_overwritten(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    desk.array("out.zarr/corrected_by_hand", (8, 8))
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite"))
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "corrected_by_hand" in outcome.stderr
    assert hash_tree(desk.root) == before


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_sink_in_use_is_left_alone(
    flag: str, desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    with places.locked(str(desk.sink)):
        before = hash_tree(desk.root)
        outcome = call_cli("segment", *desk.run(*flags_for(cluster), flag))
        assert (outcome.code, len(outcome.lines)) == (2, 1)
        assert f"is being written by process {os.getpid()}" in outcome.stderr
        assert hash_tree(desk.root) == before


def test_missing_folders_above_the_sink_are_made(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    sink = desk.root / "new" / "folders" / "out.zarr"
    assert call_cli("segment", *desk.run(*flags_for(cluster), sink=sink)).code == 0
    assert (sink / "classes" / "zarr.json").is_file()


@pytest.mark.parametrize(
    "where",
    [
        ["--scheduler", "tcp://127.0.0.1:9"],
        ["--scheduler-file", "nowhere.json"],
        ["--scheduler", "not an address"],
    ],
    ids=["unreachable", "no-file", "no-address"],
)
def test_scheduler_that_does_not_answer_is_lost_infrastructure(
    where: list[str], desk: Desk, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*where))
    assert (outcome.code, len(outcome.lines)) == (3, 1), outcome.stderr
    assert where[1] in outcome.stderr
    assert hash_tree(desk.root) == before


def test_scheduler_without_workers_is_lost_infrastructure(
    desk: Desk, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    before = hash_tree(desk.root)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty_cluster:
        outcome = call_cli("segment", *desk.run("--scheduler", empty_cluster.scheduler_address))
    assert (outcome.code, len(outcome.lines)) == (3, 1), outcome.stderr
    assert "has no workers" in outcome.stderr
    assert hash_tree(desk.root) == before


def test_bad_value_in_the_environment_is_a_usage_error(desk: Desk, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("segment", *desk.run(), env={"UNET_DASK_SEGMENT_WORKERS": "abc"})
    assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
    assert outcome.stderr.startswith("unet-dask: ")
    assert "abc" in outcome.stderr


def test_full_disk_ends_the_run_at_once(desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    (desk.sink / "_unet_dask" / "ledger.jsonl").write_bytes(b"")
    shutil.rmtree(desk.sink / "classes" / "0" / "c")
    desk.file("out.zarr/classes/0/c", b"a file where a folder is wanted, as good as a full disk")
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), "--resume"))
    assert (outcome.code, len(outcome.lines)) == (3, 1), outcome.stderr
    assert "cannot be written" in outcome.stderr
    assert "--resume" in outcome.stderr


def test_secrets_of_a_sink_are_not_shown(desk: Desk, call_cli: Callable[..., Any]) -> None:
    outcome = call_cli("segment", *desk.run(sink="https://me:s3cret@127.0.0.1:9/out.zarr?token=s3cret"))
    assert outcome.code == 2
    assert "s3cret" not in outcome.stderr
