"""The dashboard: one page of how a served model does, as a file or live.

```python
with open_source("predictions.db") as log:
    html = page(gather(log, Wanted(manifest=bundle.manifest)))
```

What is shown is gathered first (`state`, one JSON value) and drawn second, without a script: the
page tells all without one, and with one lets each drawing be asked for its numbers and, shown by a
server (`live`), renews itself.
"""

from __future__ import annotations

from fettle.monitor.dashboard._page import fragment, page
from fettle.monitor.dashboard.state import Wanted, gather, renewed

__all__ = ["Wanted", "fragment", "gather", "page", "renewed"]
