import time

while True:
    print("the worker is at it", flush=True)
    time.sleep(10)
