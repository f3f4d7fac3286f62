"""What an object is, and how those of a volume are made so that it does not matter what the volume is cut into.

Cells (:mod:`region`) are connected pieces of a class (:mod:`pieces`): their holes are filled, they are split, what is
too small goes (:mod:`shape`), and they grow (:mod:`growth`). Every step looks at one object alone, within its own
bounding box; and an object grows by a fixed number of steps, each of which looks at neighbours. So whoever does it,
and whatever else he has at hand, comes to the same voxels. Two rules keep it so. An object within the hole of another
is part of that, as if the hole had been filled in the map of classes. And an object whose box is longer than
:data:`~unet_dask.objects.rule.REACH` stays as it is, because no region could be sure to see all of it; such objects
are counted and reported.

Neurites (:mod:`neurites`) are basins of the foreground (:mod:`basins`) that have enough in common (:mod:`adjacency`,
:mod:`agglomeration`): sums of whole numbers, and an order of merging that does not matter.

Objects of planes may be linked to go through a stack (:mod:`planes`). What a run makes of it in regions, :mod:`whole`
makes of an image in memory.
"""
