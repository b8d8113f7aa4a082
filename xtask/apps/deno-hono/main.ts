import { Hono } from "hono";

const app = new Hono();

app.get("/", (context) => context.text("This is the first release"));

Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.env.get("PORT")) }, app.fetch);
