"""Objects of a finished result for other programs: as polygons, and as pictures.

An outline is known by its corners (:mod:`.corners`), which are sums over pixels: a block adds what its pixels have, and
corners that lie within an object cancel when the blocks are added up. So the outline of an object is exact however
large it is and however many blocks it crosses, and none of them looks at its neighbours. Corners become rings, and
rings polygons, once all corners of an object are there (:mod:`.rings`).
"""
