from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def index(request):
    return PlainTextResponse("This is the first release")


app = Starlette(routes=[Route("/", index)])
