# nginx takes the requests and php-fpm answers them over a socket. When one ends so does the other, and the platform starts both again.
set -eu
for conf in nginx.conf php-fpm.conf; do
    sed -e "s|@PORT@|$PORT|" -e "s|@TMPDIR@|$TMPDIR|" -e "s|@ROOT@|$PWD/public|" "$conf" > "$TMPDIR/$conf"
done
/usr/sbin/php-fpm[0-9]* --nodaemonize --fpm-config "$TMPDIR/php-fpm.conf" &
/usr/sbin/nginx -e stderr -c "$TMPDIR/nginx.conf" &
wait -n
kill $(jobs -p)
