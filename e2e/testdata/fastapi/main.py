"""A shop's API: FastAPI on PostgreSQL, with a slow query and nothing against a stampede.

It knows nothing of the proxy before it, which is what makes a thousand requests one query.
"""

import asyncio
import os
import time

import asyncpg
from fastapi import FastAPI, HTTPException, Path, Request

DATABASE_URL = os.environ["DATABASE_URL"]
# How long a query holds its connection before it reads the row, in seconds.
QUERY_DELAY = float(os.environ.get("QUERY_DELAY", "0.5"))

app = FastAPI(title="Products")


@app.on_event("startup")
async def connect() -> None:
    app.state.pool = await asyncpg.create_pool(DATABASE_URL, min_size=5, max_size=10, command_timeout=300)


@app.on_event("shutdown")
async def disconnect() -> None:
    await app.state.pool.close()


@app.get("/")
async def index() -> dict:
    return {"endpoints": ["/health", "/product/normal/{product_id}"]}


@app.get("/health")
async def health(request: Request) -> dict:
    try:
        await request.app.state.pool.fetchval("SELECT 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise HTTPException(503, {"status": "unhealthy", "database": "disconnected"})
    return {"status": "healthy", "database": "connected"}


@app.get("/product/normal/{product_id}")
async def normal(request: Request, product_id: int = Path(ge=1, le=2**31 - 1)) -> dict:
    begin = time.perf_counter()
    product = await fetch_product(request.app.state.pool, product_id)
    if product is None:
        raise HTTPException(404, "Product not found")
    return {
        "query_time_ms": round((time.perf_counter() - begin) * 1000, 2),
        "timestamp": time.time(),
        "product": product,
        "endpoint_type": "normal",
    }


async def fetch_product(pool: asyncpg.Pool, product_id: int) -> dict | None:
    async with pool.acquire() as connection:
        await asyncio.sleep(QUERY_DELAY)
        row = await connection.fetchrow("SELECT id, name, price, description FROM products WHERE id = $1", product_id)
    if row is None:
        return None
    return {**row, "price": float(row["price"])}
