//! REST wire types, error codes, OpenAPI, typed client.
