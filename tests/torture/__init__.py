"""The torture tier: what a run is put through, and what must be left when it is over.

Every harness breaks something on purpose, thousands of times at full scale, and compares what is left with an
undisturbed run. Every harness also has a control: a bug that is planted, and must be found.
"""
