from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def read_root():
    return {"text": "This is the first release"}
