"""Objects of a finished result as a table: how many there are, where each lies, how large and how bright it is.

The label image is gone through block by block. A block says of each object what it sees of it, as sums that add up, and
the sums of all blocks are merged by object (:mod:`.sums`). They are sorted on disk if they do not fit
(:mod:`.spill`), so memory is bounded by the size of a block, whatever the number of objects and however far one
reaches. Rows come in the order of the objects' numbers. Areas, places and grey values that are integers are added as
integers, so a table does not depend on blocks, chunks or threads.
"""
