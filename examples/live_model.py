"""Attack a model behind HTTP, here one that fails now and then; the bill and the server's own count agree."""

import httpx

import bbox
from bbox.serving import Faults, server

# Your server's URL goes where live.url stands below. This one answers 4% of the requests 429 and drops 2%.
digits = bbox.data.load("zoo:digits").select(limit=8)
live = server(bbox.targets.load("zoo:digits", device="cpu"), Faults(rate_429=0.04, rate_drop=0.02), port=0)
with live:
    result = bbox.attack(live.url, digits, attack="cgba", budget=200, max_requests=2000, patience=30)
    books = httpx.get(f"{live.url.partition('/v2/')[0]}/bbox/books").json()

# A row that was sent twice is one query of its image and two rows on the bill.
ledgers = result.ledgers.values()
queries, sent, again = (sum(getattr(book, name) for book in ledgers) for name in ("queries", "billed", "retried"))
print(f"{int(result.success.sum())} of {len(digits)} images fooled, at most {int(result.queries.max())} queries each")
print(f"{queries:,} queries; {sent:,} rows sent, {again:,} of them again; the server counted {books['rows']:,}")
