"""The application: what is served at which address."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence, Sized
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response, Security
from fastapi.responses import HTMLResponse
from fastapi.security import APIKeyHeader, HTTPBearer

from recsys import __version__
from recsys.exceptions import InvalidInputError, examples
from recsys.retrieval import Bundle, load_bundle
from recsys.serving import pages, schemas
from recsys.serving.answering import Asked, Stranger
from recsys.serving.answers import ERROR_HANDLERS, plain, scored, to_error, to_json
from recsys.serving.bodies import BoundedRoute
from recsys.serving.gate import Gate
from recsys.serving.service import Held, Service
from recsys.serving.settings import Settings

__all__ = ["create_app"]

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer, "description": why}
    for status, why in {
        401: "The API key is missing or wrong.",
        403: "Sent by a page of another site.",
        404: "No such address; an item whose label has a line break is named in a body.",
        408: "The body came too slowly.",
        409: "The bundle cannot be served.",
        413: "The body is too long.",
        422: "Something is not what was expected; the message says what.",
        503: "Too much to do, or about to end; try again after the seconds of Retry-After.",
        504: "No answer in time.",
    }.items()
}
_OF_READING: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (408, 413, 422, 503, 504)}
_OF_CHANGES: dict[int | str, dict[str, Any]] = {
    status: _ERRORS[status] for status in (401, 403, 408, 413, 422, 503, 504)
}
# Only documents what `gate` checks, before a body is read.
_KEY = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
]


def create_app(settings: Settings, load: Callable[[Path], Bundle] = load_bundle) -> FastAPI:
    """Make an application that serves a bundle.

    Parameters
    ----------
    settings : Settings
    load : callable, default=load_bundle
        From a path to a bundle.

    Returns
    -------
    FastAPI
        Its `state.service` holds the bundle.

    Raises
    ------
    PersistenceError
        If there is no bundle.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from recsys import Popularity
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Popularity().fit(pd.DataFrame({"user_id": [1, 2], "item_id": ["tea", "tea"]})).export(folder)
    ...     app = create_app(Settings(Path(folder)))
    >>> app.state.service.held.bundle
    Bundle(Popularity: 1 items, 2 users)
    """
    service = Service(settings, load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="recsys",
        version=__version__,
        description="Recommendations out of one bundle. Ids are JSON strings or whole numbers.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=ERROR_HANDLERS,
    )
    app.state.service = service
    app.add_middleware(Gate, service=service)
    app.include_router(_finding(service))
    app.include_router(_telling(service))
    app.include_router(_changing(service))
    _add_pages(app, service)
    return app


def _finding(service: Service) -> APIRouter:
    """Lists of items, and of users."""
    router, settings = APIRouter(route_class=BoundedRoute, responses=_OF_READING), service.settings

    @router.post("/recommend", response_model=schemas.Recommendation | schemas.Recommendations)
    async def recommend(asked: schemas.Answer) -> Response:
        """The k best items of each user: of one, or of several as `requests`."""
        requests = asked.requests if isinstance(asked, schemas.RecommendMany) else [asked]
        _check_length("requests", requests, settings.max_users)
        found = await service.batcher.submit([_asked(each, settings) for each in requests])
        results = [
            {"user": request.user, "path": each.path, "items": scored(each.item_ids, each.scores)}
            for request, each in zip(requests, found, strict=True)
        ]
        return to_json({"results": results} if isinstance(asked, schemas.RecommendMany) else results[0])

    @router.post("/similar", response_model=schemas.FoundItems)
    async def similar(asked: schemas.Similar) -> Response:
        """The k items most similar to each of `items`."""
        _check_length("items", asked.items, settings.max_users)
        _check_k(asked.k, settings.max_k)
        [found] = await service.batcher.submit(
            [lambda held: held.bundle.similar_items(asked.items, asked.k, where=asked.where)]
        )
        return to_json({"results": [{"item": one.item_id, "items": scored(one.item_ids, one.scores)} for one in found]})

    @router.post("/reach", response_model=schemas.FoundUsers)
    async def reach(asked: schemas.Reach) -> Response:
        """The k known users whom each of `items` reaches: those who get it highest in their own lists."""
        _check_length("items", asked.items, settings.max_users)
        _check_k(asked.k, settings.max_k)
        [found] = await service.batcher.submit([lambda held: held.bundle.reach(asked.items, asked.k)])
        return to_json({"results": [{"item": one.item_id, "users": scored(one.user_ids, one.scores)} for one in found]})

    return router


def _telling(service: Service) -> APIRouter:
    """What is known, and why a score is what it is."""
    router, settings = APIRouter(route_class=BoundedRoute, responses=_OF_READING), service.settings

    @router.post("/explain", response_model=schemas.ExplainedItems)
    async def explain(asked: schemas.Explain) -> Response:
        """What each field contributes to the scores of `items`, for a user who is known or told of."""
        _check_length("items", asked.items, settings.max_users)
        _check_length("interactions", asked.interactions or (), settings.max_items)
        [found] = await service.batcher.submit([lambda held: _explain(held, asked)])
        return to_json({"results": found})

    @router.get("/explain", response_model=schemas.ExplainedItems)
    async def explain_known(user: schemas.Written, item: schemas.Written) -> Response:
        """What each field contributes to the score of an item, for a known user."""
        [found] = await service.batcher.submit(
            [lambda held: _explain(held, schemas.Explain(user=held.user(user), items=[held.item(item)]))]
        )
        return to_json({"results": found})

    @router.get("/items", response_model=schemas.Described)
    async def items(ids: Annotated[list[schemas.Written], Query(min_length=1)]) -> Response:
        """Metadata of items: `ids` may be repeated."""
        _check_length("ids", ids, settings.max_items)
        [found] = await service.batcher.submit([lambda held: _describe(held, ids)])
        return to_json({"results": found})

    @router.get("/schema", response_model=schemas.Schema)
    async def schema() -> Response:
        """What may be told and asked: fields with their kinds and values, some users, counts."""
        [found] = await service.batcher.submit([_schema])
        return to_json(found)

    return router


def _changing(service: Service) -> APIRouter:
    """What needs the key."""
    router = APIRouter(route_class=BoundedRoute, responses=_OF_CHANGES, dependencies=_KEY)
    settings = service.settings

    @router.put("/items", response_model=schemas.Counts)
    async def put_items(asked: schemas.Items) -> Response:
        """Add items, or replace what is known of those that are there: all of them, or none if one is refused."""
        _check_length("items", asked.items, settings.max_items)
        items: dict[Any, schemas.NewItem] = {each.id: each for each in asked.items}
        if len(items) < len(asked.items):
            twice = [label for label, n in Counter(each.id for each in asked.items).items() if n > 1]
            raise InvalidInputError(f"`items` has {examples(twice)} more than once; expected each item once.")
        return to_json(_counts(await service.change(lambda held: _put(held, items))))

    @router.put("/items/{item:path}", response_model=schemas.Counts, responses={404: _ERRORS[404]})
    async def put_item(item: schemas.Written, asked: schemas.NewItem) -> Response:
        """Add an item, or replace what is known of it."""
        return to_json(_counts(await service.change(lambda held: _put(held, {held.item(item): asked}))))

    @router.delete("/items", response_model=schemas.Counts)
    async def remove_items(asked: schemas.Names) -> Response:
        """Remove items: all of them, or none if one is unknown."""
        _check_length("items", asked.items, settings.max_items)
        return to_json(_counts(await service.change(lambda held: held.bundle.remove_items(asked.items))))

    @router.delete("/items/{item:path}", response_model=schemas.Counts, responses={404: _ERRORS[404]})
    async def remove_item(item: schemas.Written) -> Response:
        """Remove an item."""
        return to_json(_counts(await service.change(lambda held: held.bundle.remove_items([held.item(item)]))))

    @router.post("/bundle", response_model=schemas.Counts, responses={409: _ERRORS[409]})
    async def swap(asked: schemas.Swap) -> Response:
        """Serve another bundle of the folder `--root`; requests in flight end on the old one.

        Items that were put or removed since the start belong to the old one.
        """
        if settings.root is None:
            raise HTTPException(409, "There is no folder of bundles to choose from; expected one: start with --root.")
        return to_json(_counts(await service.swap(settings.root / asked.name)))

    return router


def _add_pages(app: FastAPI, service: Service) -> None:
    """What a browser and an operator look at."""
    files = pages.read_files(pages.FOLDER)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route("/static/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(request: Request, name: str = "index.html") -> Response:
        found = files.get(name)
        if found is None:
            raise HTTPException(404, "There is no such file.")
        headers = {"etag": found.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.type)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(pages.describe(app.openapi()))

    @app.get("/healthz", response_model=schemas.Status)
    async def healthz() -> Response:
        """Whether the process is alive."""
        return to_json({"status": "alive"})

    @app.get("/readyz", response_model=schemas.Status, responses={503: _ERRORS[503]})
    async def readyz() -> Response:
        """Whether requests should be sent here: not when the process is about to end."""
        if service.is_closing:
            return to_error(503, "The process is about to end; expected requests elsewhere.", "Closing")
        return to_json({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.to_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _check_length(name: str, given: Sized, most: int) -> None:
    if len(given) > most:
        raise InvalidInputError(f"`{name}` has {len(given)} entries; expected at most {most}: send several requests.")


def _check_k(k: int, most: int) -> None:
    if k > most:
        raise InvalidInputError(f"`k` is {k}; expected at most {most}.")


def _asked(request: schemas.Recommend, settings: Settings) -> Asked:
    """A request as a bundle is asked, but for labels that are keys of JSON."""
    _check_k(request.k, settings.max_k)
    for name in ("interactions", "candidates", "exclude"):
        _check_length(name, getattr(request, name) or (), settings.max_items)
    return Asked(
        Stranger() if request.user is None else request.user,
        request.features,
        request.interactions,
        request.context,
        request.k,
        request.where,
        request.candidates,
        request.exclude,
        request.exclude_seen,
        request.on_cold,
    )


def _explain(held: Held, asked: schemas.Explain) -> list[dict[str, Any]]:
    """What each field contributes to the scores of items."""
    user = Stranger() if asked.user is None else asked.user
    told: dict[str, Any] = {
        "user_features": None if asked.features is None else {user: asked.features},
        "interactions": None if asked.interactions is None else {user: held.ratings(asked.interactions)},
        "context": asked.context,
    }
    return [
        {
            "item": one.item_id,
            "score": float(one.score),
            "fields": [
                {"source": source, "field": field, "weight": plain(float(weight)), "contribution": float(contribution)}
                for (source, field), (weight, contribution) in one.contributions.items()
            ],
        }
        for one in held.bundle.explain([user], asked.items, **told)
    ]


def _describe(held: Held, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Metadata of items."""
    labels = [held.item(each) for each in ids]
    found = held.bundle.describe(labels)
    return [{"id": label, "metadata": plain(each)} for label, each in zip(labels, found, strict=True)]


def _put(held: Held, items: dict[Any, schemas.NewItem]) -> None:
    """Add items, or replace what is known of them."""
    metadata = {label: item.metadata for label, item in items.items() if item.metadata is not None} or None
    held.bundle.put_items({label: item.features for label, item in items.items()}, metadata)


def _schema(held: Held) -> dict[str, Any]:
    """What a bundle may be told and asked."""
    bundle = held.bundle
    fields = ("user_fields", "item_fields", "context_fields", "metadata_fields")
    users = [{"id": each["user_id"], "features": plain(each["features"])} for each in bundle.users(100)]
    return {**_counts(held), **{name: plain(getattr(bundle, name)) for name in fields}, "users": users}


def _counts(held: Held) -> dict[str, Any]:
    bundle = held.bundle
    return {"bundle": held.path.name, "model": bundle.model, "n_items": bundle.n_items, "n_users": bundle.n_users}
