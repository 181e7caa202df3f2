"""Set up before any test module is imported."""

import terntable.host  # noqa: F401  sets NumPy's threads before NumPy is imported
