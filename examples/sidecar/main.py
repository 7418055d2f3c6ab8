"""A shop's API with a slow database, and nothing against a stampede: that is its sidecar's work.

All it has to do is to say of an answer that depends on who asks that it is private.
"""

import asyncio
import os

from fastapi import FastAPI, Header, HTTPException, Response

# How long a query takes, in seconds.
QUERY_DELAY = float(os.environ.get("QUERY_DELAY", "0.5"))

PRODUCTS = {1: {"id": 1, "name": "Keyboard", "price": 49.0}, 2: {"id": 2, "name": "Mouse", "price": 19.0}}
USERS = {"Bearer a-token": "alice", "Bearer b-token": "bob"}

app = FastAPI(title="Shop")
queries = 0


async def query(product_id: int) -> dict:
    """Stands for a query that a database takes long for."""
    global queries
    queries += 1
    await asyncio.sleep(QUERY_DELAY)
    if product_id not in PRODUCTS:
        raise HTTPException(404, "there is no such product")
    return PRODUCTS[product_id]


@app.get("/product/{product_id}")
async def product(product_id: int) -> dict:
    return await query(product_id)


@app.get("/cart")
async def cart(response: Response, authorization: str = Header("")) -> dict:
    if authorization not in USERS:
        raise HTTPException(401, "sign in first")
    response.headers["Cache-Control"] = "private"
    return {"user": USERS[authorization], "products": [await query(1)]}


@app.get("/queries")
async def count() -> dict:
    return {"queries": queries}
