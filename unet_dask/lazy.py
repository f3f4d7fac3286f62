"""The verb `segment`: an array in, a lazy array of the same kind out, and nothing computed.

For a notebook, and for arrays that no store holds. The array is cut into regions on the pooling lattice, near its
own chunks, and goes through the same `map_overlap` and the same task as a store does, so the values are the same.
A volume that lies in a store is better off with `segment_store`, whose graph does not grow with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from unet_dask import axes as axes_
from unet_dask import graph, private
from unet_dask.choices import BackendName
from unet_dask.engine.cache import NetworkKey
from unet_dask.engine.device import choose_device, choose_precision, require_backend
from unet_dask.errors import InputError, ModelError, OptionError
from unet_dask.model.cost import pass_bytes
from unet_dask.model.file import Model, load_model, save_model
from unet_dask.model.header import Normalisation
from unet_dask.products import PRODUCTS
from unet_dask.tiling.region import AxisGrid, RegionGrid, Wave
from unet_dask.tiling.valid import Context, aligned

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import dask.array as da
    import xarray
    from numpy.typing import NDArray

    from unet_dask.model.spec import Spec
    from unet_dask.products import Product

Image = TypeVar("Image", "da.Array", "xarray.DataArray", "NDArray[np.generic]")
#: Packages whose arrays dask reads piece by piece.
_STORED = ("zarr", "h5py")
#: Feature maps of a tile may take this much; larger chunks are run in several tiles.
_ACTIVATION_BYTES = 1 << 30


def segment(
    image: Image,
    model: Model | str | os.PathLike[str],
    *,
    output: Literal["classes", "probabilities"] = "classes",
    axes: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    nan: Literal["stop", "zero"] = "stop",
) -> Image:
    """Segment an array lazily.

    Parameters
    ----------
    image : dask array or `xarray.DataArray` of grey values; a numpy array is segmented at once
    model : loaded model, path of a model file, or name of a model
    output : "classes", uint8 without a channel axis; or "probabilities", float32 with a channel axis "c" first
        of the spatial axes, one channel per class
    axes : of the image, such as "zyx" or "yxc"; by default the last of "tczyx" that fit the network, with a
        channel axis if the network takes several channels. A DataArray has its own
    device, precision : of the network
    nan : "stop" or "zero", for values that are not finite

    Returns
    -------
    the same kind as `image`; of a DataArray with its dimensions and coordinates

    Raises
    ------
    InputError
        If the axes do not fit the image, or it is an array with rules of its own, such as a masked one.
    ModelError
        If the network does not fit the image.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    if type(image).__name__ == "DataArray":
        labelled: Image = _segment_dataarray(
            image, loaded, output=output, device=device, precision=precision, nan=nan
        )
        return labelled
    import dask.array as da

    image = _plain(image)
    network = loaded.header.network
    named = axes_.validate(axes) if axes else _default_axes(image.ndim, network)
    if len(named) != image.ndim:
        raise InputError(f"The axes {named} name {len(named)} axes, but the image has {image.ndim}.")
    array = image if isinstance(image, da.Array) else da.from_array(image)
    result = _segment_canonical(
        axes_.to_canonical(array, named),
        axes_.canonical(named),
        loaded,
        output=output,
        device=device,
        precision=precision,
        nan=nan,
    )
    return result if isinstance(image, da.Array) else result.compute()  # type: ignore[no-any-return] # numpy in, numpy out


def _plain(image: Any) -> Any:  # whatever a caller has
    """Return an image as a plain array of numbers, or refuse it.

    Arithmetic of masked arrays leaves masked values out, so a network would see raw values under the mask; sparse,
    structured and other arrays have rules of their own as well.
    """
    import dask.array as da

    lazy = isinstance(image, da.Array)
    values = image._meta if lazy else image  # noqa: SLF001 # dask has no public name for what its blocks are
    if isinstance(values, np.ma.MaskedArray):
        fill = "dask.array.ma.filled(image, 0)" if lazy else "image.filled(0)"
        raise InputError(
            f"The image is a masked array, and a network sees every value. Fill it: {fill}, or with NaN and nan='zero'."
        )
    if not lazy and type(values).__module__.split(".")[0] in _STORED and hasattr(values, "dtype"):
        values = da.from_array(values)._meta  # noqa: SLF001
    if not isinstance(values, np.ndarray):
        kind = f"{type(values).__module__.split('.')[0]}.{type(values).__name__}"
        raise InputError(
            f"The image is a {kind}. Give a NumPy array, a dask array of such, or an xarray.DataArray."
        )
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"The image holds {values.dtype} values, which are no grey values. Convert it first."
        )
    return np.asarray(image) if isinstance(image, np.ndarray) else image


def _segment_dataarray(image: Any, model: Model, *, output: str, **settings: str) -> Any:
    """Segment a DataArray, keeping its names."""
    from unet_dask.io.dataarray import from_dataarray, to_dataarray

    array, axes = from_dataarray(image)
    array = _plain(array)
    result = _segment_canonical(array, axes, model, output=output, **settings)
    if PRODUCTS[output].has_channels:
        return to_dataarray(result, image, axes, model.header.class_names)
    return to_dataarray(result, image, axes.replace("c", ""))


def _segment_canonical(
    array: Any,  # a dask array
    axes: str,
    model: Model,
    *,
    output: str,
    device: str,
    precision: str,
    nan: str,
) -> Any:
    """Segment a dask array with canonical axes; the channel axis of classes is taken away."""
    import dask.array as da

    product = _product(output, array.shape)
    if not isinstance(array, da.Array):
        array = da.from_array(array)
    network, channel = model.header.network, axes.index("c")
    if array.shape[channel] != network.channels:
        raise ModelError(
            f"The model takes {network.channels} channel(s), but the image has {array.shape[channel]} along axes "
            f"{axes}. Choose channels, or name the axes."
        )
    if network.dims == 3 and "z" not in axes:
        raise ModelError(f"The model is three-dimensional, but the image has the axes {axes}, without z.")
    array, constants = _normalised(array, channel, model.header.normalisation)
    grid = _grid(array, axes, network)
    wave = Wave(grid, (0,) * array.ndim, grid.counts)
    chosen = choose_device(device)
    chosen_precision = _lazy_precision(precision, chosen, network)
    task = graph.RegionTask(
        grid=grid,
        outputs=(product,),
        network=_key(model, chosen, chosen_precision),
        normalisation=constants,
        spec=network,
        threads=0,
        nan=nan,
    )
    chunks = [tuple(grid.write(i)[1] - grid.write(i)[0] for i in range(grid.count)) for grid in grid.grids]
    chunks[channel] = (network.classes,) if product.has_channels else (1,)
    result = graph.overlapped(
        graph.ReturnRegion(task),
        array.rechunk(wave.chunks),
        wave,
        chunks=tuple(chunks),
        dtype=np.dtype(product.dtype),
    )
    return result if product.has_channels else result.squeeze(channel)


def _product(output: str, shape: Sequence[int]) -> Product:
    """Return a product that each region can be made of by itself."""
    known = [name for name, kind in PRODUCTS.items() if not kind.joined]
    if output not in known:
        raise OptionError(f"There is no output {output!r}. Use {' or '.join(known)}.")
    return PRODUCTS[output](PRODUCTS[output].type_for(shape, probability="float32"))


def _normalised(array: Any, channel: int, constants: Normalisation) -> tuple[Any, Normalisation]:
    """Return the array and constants for it; statistics of the whole volume stay lazy."""
    if constants.kind == "constant":
        return array, constants
    import dask.array as da

    others = tuple(axis for axis in range(array.ndim) if axis != channel)
    values = array.astype(np.float64)
    mean, std = values.mean(axis=others, keepdims=True), values.std(axis=others, keepdims=True)
    scaled = ((values - mean) / da.where(std > 0, std, 1.0)).astype(np.float32)
    count = array.shape[channel]
    return scaled, Normalisation("constant", (0.0,) * count, (1.0,) * count)


def _grid(array: Any, axes: str, network: Spec) -> RegionGrid:
    """Return regions near the chunks of an array."""
    first_spatial = len(axes) - network.dims
    sides = [max(sizes, default=1) for sizes in array.chunks]
    grids = []
    for axis, (size, side) in enumerate(zip(array.shape, sides, strict=True)):
        if axis < first_spatial:
            step = size if axes[axis] == "c" else side
            grids.append(AxisGrid(size, 0, size, max(step, 1), 1, Context()))
            continue
        context = network.contexts[axis - first_spatial]
        thinnest = max(context.halo + context.slack, 1)
        step = aligned(max(side, thinnest), context.stride)
        grids.append(AxisGrid(size, 0, size, step, _core(min(step, size), sides, network, context), context))
    return RegionGrid(axes, tuple(grids))


def _core(length: int, sides: list[int], network: Spec, context: Context) -> int:
    """Return a tile for a region of this length, halved until feature maps and probabilities of a cube of it fit."""
    core = aligned(length, context.stride)
    while core > context.stride:
        tile = [
            aligned(min(side, core), other.stride) + other.slack + 2 * other.halo
            for side, other in zip(sides[-network.dims :], network.contexts, strict=True)
        ]
        if pass_bytes(network, tile, item=4) <= _ACTIVATION_BYTES:
            break
        core = aligned(core // 2, context.stride)
    return core


def _lazy_precision(precision: str, device: str, network: Spec) -> str:
    """Return the precision of a network that is run with nothing measured before."""
    chosen = choose_precision("float32" if network.foreign and precision == "auto" else precision, device)
    require_backend(BackendName.TORCH, device=device, precision=chosen, network=network)
    if chosen == "int8":
        raise OptionError(
            "int8 measures the data before it starts, which an array that is computed later does not allow. Use "
            "segment_store, or precision='float32'."
        )
    return chosen


def _key(model: Model, device: str, precision: str) -> NetworkKey:
    """Return the name by which workers load the model.

    One that no file holds as it is now gets one, for as long as this process lives: what was built here may be
    computed at any time, by any process of this user.
    """
    path, checksum = model.path, model.checksum
    now = model.state_now()
    if path is None or now != model.state:
        path, checksum = private.lasting() / f"{now}.safetensors", now
        if not path.exists():
            save_model(model, path)
            path.chmod(0o600)
    return NetworkKey(str(path.resolve()), checksum, device, precision)


def _default_axes(ndim: int, network: Spec) -> str:
    """Return the axes of an image that names none."""
    spatial = "zyx"[-network.dims :]
    if network.channels > 1:
        spatial = "c" + spatial
    if ndim == len(spatial):
        return spatial
    if ndim == len(spatial) + 1 and network.dims == 2 and network.channels == 1:
        return "zyx"
    raise InputError(
        f"An image of {ndim} axes could mean several things to a network of {network.dims} dimensions and "
        f"{network.channels} channel(s). Name them, such as axes={'t' + spatial!r}."
    )
