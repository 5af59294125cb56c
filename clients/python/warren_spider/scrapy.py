"""For a Scrapy project that Warren runs (mode `run`): its items and numbers become the crawl's.

In its settings:  ITEM_PIPELINES = {"warren_spider.scrapy.WarrenPipeline": 900}
"""

from __future__ import annotations

import json
import os
from typing import Any, Optional

from ._channel import Channel
from ._crawl import Crawl, connect


class WarrenPipeline:
    """Hands each item on to Warren; does nothing where Scrapy runs by itself."""

    def __init__(self, channel: Optional[Channel] = None) -> None:
        self._channel = channel
        self._crawl: Optional[Crawl] = None

    def open_spider(self, spider: Any) -> None:
        if "WARREN_CRAWL_ID" in os.environ:
            self._crawl = connect(self._channel)

    def process_item(self, item: Any, spider: Any) -> Any:
        if self._crawl is not None:
            # Dates and the like are no JSON; as text they are.
            self._crawl.item(json.loads(json.dumps(_as_dict(item), default=str)))
        return item

    def close_spider(self, spider: Any) -> None:
        if self._crawl is None:
            return
        for name, value in spider.crawler.stats.get_stats().items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._crawl.count(f"scrapy/{name}", value)


def _as_dict(item: Any) -> Any:
    try:
        from itemadapter import ItemAdapter  # comes with Scrapy
    except ImportError:
        return dict(item)
    return ItemAdapter(item).asdict()
