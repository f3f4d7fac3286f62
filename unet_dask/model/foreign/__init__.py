"""Networks of others, in ONNX: what they look at is measured, and proven, before they are believed.

A network comes in as a file, or as a package of the BioImage Model Zoo. `package` finds the graph, and what was said
about it; `graph` runs it; `twin` and `reach` measure how far and on which lattice it looks; `prices` what a pass takes;
`measure` puts all that together, and refuses what cannot be cut into tiles. What comes out is a model file of ours with
the graph in it (`kept`), so that nobody after that has to know where it came from.

Nothing of ONNX is imported unless such a network is used.
"""
