import os

import bottle


@bottle.get("/")
def index():
    return "This is the first release"


if __name__ == "__main__":
    bottle.run(host="0.0.0.0", port=int(os.environ["PORT"]))
