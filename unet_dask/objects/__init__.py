"""What becomes of an object once all of it is known: its holes are filled, it is split, and what is too small goes.

Every step looks at one object alone, within its own bounding box; and an object grows by a fixed number of steps, each
of which looks at neighbours. So whoever does it, and whatever else he has at hand, comes to the same voxels: the result
of a volume that was cut into regions is that of the volume in one piece. Two rules keep it so. An object within the
hole of another is part of that, as if the hole had been filled in the map of classes. And an object whose box is longer
than :data:`~unet_dask.objects.rule.REACH` stays as it is, because no region could be sure to see all of it; such
objects are counted and reported.
"""
