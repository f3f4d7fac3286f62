"""What is said wrongly about source, settings and model, and a word that the refusal must hold."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable

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


#: Case, and what its one line must say.
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
    (channels_are_words, "Channel 'red' was asked of .* by number"),
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
    (unknown_bundled, "neither a model file nor the name of a model"),
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
]
