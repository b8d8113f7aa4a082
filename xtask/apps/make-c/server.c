/* Answers every connection with one line, one after the other. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char body[] = "This is the first release";

int main(void)
{
	const char *text = getenv("PORT");
	struct sockaddr_in address = {.sin_family = AF_INET};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_port = htons((unsigned short)atoi(text ? text : "8000"));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		char request[8192];
		size_t length = 0;
		ssize_t count;
		int client = accept(listener, NULL, NULL);

		if (client < 0)
			continue;
		while (length < sizeof request - 1 && (count = read(client, request + length, sizeof request - 1 - length)) > 0) {
			length += (size_t)count;
			request[length] = 0;
			if (strstr(request, "\r\n\r\n")) {
				dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", sizeof body - 1, body);
				break;
			}
		}
		close(client);
	}
}
