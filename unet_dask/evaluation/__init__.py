"""A prediction against its truth: scored plane by plane, and pooled."""
