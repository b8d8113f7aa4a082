#!/bin/sh
exec busybox httpd -f -p "127.0.0.1:$PORT" -h www
