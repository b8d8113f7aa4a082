//! JavaScript by Node or Bun.

pub(super) mod read;

use berth_spec::manifest::Builder;

use crate::detect::rule::{Framework, Language, Line, Manager, Pairs, Serve};
use crate::detect::sign::Sign::{
    self, All, Always, Any, Before, Depends, File, Known, Not, Pinned, Root, Says, Script,
};
use crate::recipe::Tool;

pub(in crate::detect) const NODE: Language = Language {
    builder: Builder::Node,
    name: "a Node app",
    fits: File("package.json"),
    tool: Tool::Node,
    needed_to_run: true,
    programs: &["node", "npm", "npx", "pnpm", "yarn", "bun", "next", "tsx", "ts-node"],
    read: read::read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    env: &[("NODE_ENV", "production")],
    caches: &[("npm_config_cache", "npm")],
    path: &["node_modules/.bin"],
    hint: "give package.json a script `start`, or write `[processes]` with `web = \"node FILE\"` into berth.toml; when its build makes a static site, write `output = \"dist\"` below `[build]`",
};

/// What the build needs is often a development dependency, and `start` may need one, too (tsx, vite): all are installed and none is removed
/// after. They cost their bytes once, for releases share them.
const ALL_DEPENDENCIES: Pairs = &[("NODE_ENV", "development")];
const PACKAGE_FILES: &[&str] = &[".npmrc", "patches/", ".patches/", "prisma/schema.prisma"];
const NO_PIN: Sign = Not(&Known("package_manager"));

const MANAGERS: [Manager; 6] = [
    Manager {
        name: "bun",
        fits: Any(&[Pinned("bun", 0), All(&[NO_PIN, Any(&[Root("bun.lock"), Root("bun.lockb")])])]),
        tool: Some(Tool::Bun),
        lock: &["bun.lock", "bun.lockb"],
        locked: "bun install --frozen-lockfile",
        unlocked: "bun install",
        script: "bun run {script}",
        script_below: "bun run --cwd {dir} {script}",
        reads: &["bunfig.toml", ".npmrc", "patches/", "prisma/schema.prisma"],
        caches: &[("BUN_INSTALL_CACHE_DIR", "bun")],
        ..NPM
    },
    Manager {
        name: "pnpm",
        fits: Any(&[
            Pinned("pnpm", 0),
            All(&[NO_PIN, Any(&[Root("pnpm-lock.yaml"), Root("pnpm-workspace.yaml")])]),
        ]),
        tool: Some(Tool::Pnpm),
        lock: &["pnpm-lock.yaml"],
        locked: "pnpm install --frozen-lockfile",
        unlocked: "pnpm install",
        script: "pnpm run {script}",
        script_below: "pnpm --dir {dir} run {script}",
        reads: &["pnpm-workspace.yaml", ".pnpmfile.cjs", ".npmrc", "patches/", "prisma/schema.prisma"],
        relocated: &["node_modules/.bin"],
        // Links into the store would be copied when the artifact is sealed.
        install_env: &[("NODE_ENV", "development"), ("npm_config_package_import_method", "clone-or-copy")],
        caches: &[("npm_config_store_dir", "pnpm"), ("npm_config_cache", "npm")],
        ..NPM
    },
    Manager {
        name: "yarn",
        fits: Any(&[
            Pinned("yarn", 2),
            All(&[NO_PIN, Any(&[Root(".yarnrc.yml"), Says("yarn.lock", "__metadata:")])]),
        ]),
        tool: Some(Tool::Yarn),
        lock: &["yarn.lock"],
        locked: "yarn install --immutable",
        unlocked: "yarn install --no-immutable",
        script: "yarn run {script}",
        script_below: "yarn --cwd {dir} run {script}",
        reads: &[
            ".yarnrc.yml",
            ".yarn/releases/",
            ".yarn/plugins/",
            ".yarn/patches/",
            ".yarn/cache/",
            ".npmrc",
            "prisma/schema.prisma",
        ],
        // Programs are started by their names, which Plug'n'Play does not offer.
        env: &[("YARN_NODE_LINKER", "node-modules"), ("YARN_ENABLE_TELEMETRY", "0")],
        caches: &[("YARN_GLOBAL_FOLDER", "yarn-berry"), ("npm_config_cache", "npm")],
        ..NPM
    },
    Manager {
        name: "yarn",
        fits: Any(&[Pinned("yarn", 0), All(&[NO_PIN, Root("yarn.lock")])]),
        tool: Some(Tool::Yarn),
        lock: &["yarn.lock"],
        locked: "yarn install --frozen-lockfile --non-interactive",
        unlocked: "yarn install --non-interactive",
        script: "yarn run {script}",
        script_below: "yarn --cwd {dir} run {script}",
        reads: &[".yarnrc", ".npmrc", "patches/", "prisma/schema.prisma"],
        caches: &[("YARN_CACHE_FOLDER", "yarn"), ("npm_config_cache", "npm")],
        ..NPM
    },
    Manager {
        fits: All(&[Known("dependencies"), Any(&[Root("package-lock.json"), Root("npm-shrinkwrap.json")])]),
        ..NPM
    },
    Manager { fits: Any(&[Known("dependencies"), Known("workspace")]), ..NPM },
];

const NPM: Manager = Manager {
    name: "npm",
    lock: &["package-lock.json", "npm-shrinkwrap.json"],
    locked: "npm ci --no-audit --no-fund",
    unlocked: "npm install --no-audit --no-fund",
    script: "npm run {script}",
    script_below: "npm run {script} --workspace={dir}",
    reads: PACKAGE_FILES,
    makes: &["node_modules"],
    install_env: ALL_DEPENDENCIES,
    ..Manager::NONE
};

const NEXT_CONFIG: &str = "next.config.*";
/// Only this machine reaches an instance: what does not go through edge is nobody's business.
const LOOPBACK: Pairs = &[("HOST", "127.0.0.1"), ("HOSTNAME", "127.0.0.1")];
const NEXT_ENV: Pairs = &[("HOSTNAME", "127.0.0.1"), ("NEXT_TELEMETRY_DISABLED", "1")];
const NUXT_ENV: Pairs = &[("HOST", "127.0.0.1"), ("NUXT_TELEMETRY_DISABLED", "1")];
const ASTRO_ENV: Pairs = &[("HOST", "127.0.0.1"), ("ASTRO_TELEMETRY_DISABLED", "1")];

const FRAMEWORKS: [Framework; 38] = [
    Framework {
        name: "Next.js as a static export",
        fits: All(&[Depends("next"), Says(NEXT_CONFIG, "output: 'export'")]),
        build: &[Line::always("next build")],
        own: &["next"],
        serve: Serve::Site("out"),
        kept: &[".next/cache"],
        env: NEXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Next.js as a standalone server",
        fits: All(&[Depends("next"), Says(NEXT_CONFIG, "output: 'standalone'"), Not(&Known("workspace"))]),
        build: &[Line::always("next build")],
        finish: &[
            Line::always("cp -R .next/static .next/standalone/.next/"),
            Line::when(File("public/"), "cp -R public .next/standalone/"),
        ],
        own: &["next start"],
        serve: Serve::Run("node .next/standalone/server.js"),
        kept: &[".next/cache"],
        env: NEXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Next.js",
        fits: Depends("next"),
        build: &[Line::always("next build")],
        own: &["next dev"],
        serve: Serve::Run("next start"),
        kept: &[".next/cache"],
        env: NEXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Nuxt as a static site",
        fits: All(&[
            Depends("nuxt"),
            Any(&[Script("build", "nuxt generate"), Script("build", "nuxi generate")]),
        ]),
        own: &["nuxt", "nuxi"],
        serve: Serve::Site(".output/public"),
        env: NUXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Nuxt 2",
        fits: Before("nuxt", 3),
        build: &[Line::always("nuxt build")],
        own: &["nuxt dev"],
        serve: Serve::Run("nuxt start"),
        env: NUXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Nuxt",
        fits: Depends("nuxt"),
        build: &[Line::always("nuxt build")],
        own: &["nuxt", "nuxi"],
        serve: Serve::Run("node .output/server/index.mjs"),
        env: NUXT_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "SvelteKit with adapter-node",
        fits: All(&[
            Depends("@sveltejs/kit"),
            Depends("@sveltejs/adapter-node"),
            Not(&Any(&[
                Says("svelte.config.*", "@sveltejs/adapter-static"),
                Says("vite.config.*", "@sveltejs/adapter-static"),
            ])),
        ]),
        build: &[Line::always("vite build")],
        own: &["vite", "svelte-kit"],
        serve: Serve::Run("node build"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "SvelteKit with adapter-static as a single page",
        fits: All(&[
            Depends("@sveltejs/kit"),
            Depends("@sveltejs/adapter-static"),
            Any(&[
                Says("svelte.config.*", "fallback: 'index.html'"),
                Says("svelte.config.*", "fallback: '200.html'"),
                Says("vite.config.*", "fallback: 'index.html'"),
                Says("vite.config.*", "fallback: '200.html'"),
            ]),
        ]),
        build: &[Line::always("vite build")],
        own: &["vite", "svelte-kit"],
        serve: Serve::SinglePage("build"),
        ..Framework::NONE
    },
    Framework {
        name: "SvelteKit with adapter-static",
        fits: All(&[Depends("@sveltejs/kit"), Depends("@sveltejs/adapter-static")]),
        build: &[Line::always("vite build")],
        own: &["vite", "svelte-kit"],
        serve: Serve::Site("build"),
        ..Framework::NONE
    },
    Framework {
        name: "SvelteKit",
        fits: Depends("@sveltejs/kit"),
        own: &["vite", "svelte-kit"],
        serve: Serve::Unclear(
            "this is SvelteKit with an adapter that does not say how it is served: `npm install -D @sveltejs/adapter-node` for a server or `@sveltejs/adapter-static` for a static site, and name it in place of `@sveltejs/adapter-auto`",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "Astro with the Node adapter",
        fits: All(&[Depends("astro"), Depends("@astrojs/node")]),
        build: &[Line::always("astro build")],
        own: &["astro"],
        serve: Serve::Run("node ./dist/server/entry.mjs"),
        env: ASTRO_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Astro with the adapter of a host",
        fits: All(&[
            Depends("astro"),
            Any(&[Depends("@astrojs/vercel"), Depends("@astrojs/netlify"), Depends("@astrojs/cloudflare")]),
        ]),
        own: &["astro"],
        serve: Serve::Unclear(
            "this is Astro with an adapter for another host: `npx astro add node` gives it a server that runs here; without any adapter it is a static site",
        ),
        env: ASTRO_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "Astro",
        fits: Depends("astro"),
        build: &[Line::always("astro build")],
        own: &["astro"],
        serve: Serve::Site("dist"),
        env: ASTRO_ENV,
        ..Framework::NONE
    },
    Framework {
        name: "React Router as a single page",
        fits: All(&[
            Any(&[Depends("@react-router/dev"), Depends("@remix-run/dev")]),
            Any(&[Says("react-router.config.*", "ssr: false"), Says("vite.config.*", "ssr: false")]),
        ]),
        build: &[Line::always("react-router build")],
        own: &["react-router-serve", "remix-serve", "vite"],
        serve: Serve::SinglePage("build/client"),
        ..Framework::NONE
    },
    Framework {
        name: "React Router",
        fits: Depends("@react-router/serve"),
        build: &[Line::always("react-router build")],
        own: &["react-router dev"],
        serve: Serve::Run("react-router-serve ./build/server/index.js"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "Remix with Vite",
        fits: All(&[Depends("@remix-run/serve"), File("vite.config.*")]),
        build: &[Line::always("remix vite:build")],
        own: &["remix vite:dev"],
        serve: Serve::Run("remix-serve ./build/server/index.js"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "Remix",
        fits: Depends("@remix-run/serve"),
        build: &[Line::always("remix build")],
        own: &["remix dev"],
        serve: Serve::Run("remix-serve ./build/index.js"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "a server built by Nitro",
        fits: Any(&[Depends("@solidjs/start"), Depends("nitro"), Depends("nitropack"), Depends("vinxi")]),
        build: &[Line::always("vinxi build")],
        own: &["vinxi", "vite", "nitro", "nitropack"],
        serve: Serve::Run("node .output/server/index.mjs"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "Gatsby",
        fits: Depends("gatsby"),
        build: &[Line::always("gatsby build")],
        own: &["gatsby", "npm run develop"],
        serve: Serve::Site("public"),
        env: &[("GATSBY_TELEMETRY_DISABLED", "1")],
        ..Framework::NONE
    },
    Framework {
        name: "Docusaurus",
        fits: Depends("@docusaurus/core"),
        build: &[Line::always("docusaurus build")],
        own: &["docusaurus"],
        serve: Serve::Site("build"),
        ..Framework::NONE
    },
    Framework {
        name: "Eleventy",
        fits: Depends("@11ty/eleventy"),
        build: &[Line::always("eleventy")],
        own: &["eleventy", "@11ty/eleventy"],
        serve: Serve::Site("_site"),
        ..Framework::NONE
    },
    Framework {
        name: "VitePress below docs",
        fits: All(&[Depends("vitepress"), File("docs/.vitepress/")]),
        build: &[Line::always("vitepress build docs")],
        own: &["vitepress"],
        serve: Serve::Site("docs/.vitepress/dist"),
        ..Framework::NONE
    },
    Framework {
        name: "VitePress",
        fits: Depends("vitepress"),
        build: &[Line::always("vitepress build")],
        own: &["vitepress"],
        serve: Serve::Site(".vitepress/dist"),
        ..Framework::NONE
    },
    Framework {
        name: "Hexo",
        fits: Depends("hexo"),
        build: &[Line::always("hexo generate")],
        own: &["hexo"],
        serve: Serve::Site("public"),
        ..Framework::NONE
    },
    Framework {
        name: "Angular with a server",
        fits: All(&[Depends("@angular/core"), Known("angular_server")]),
        build: &[Line::always("ng build")],
        own: &["ng"],
        serve: Serve::Run("node {angular_server}"),
        env: &[("NG_CLI_ANALYTICS", "false")],
        ..Framework::NONE
    },
    Framework {
        name: "Angular",
        fits: All(&[Depends("@angular/core"), Known("angular_output")]),
        build: &[Line::always("ng build")],
        own: &["ng"],
        serve: Serve::SinglePage("{angular_output}"),
        env: &[("NG_CLI_ANALYTICS", "false")],
        ..Framework::NONE
    },
    Framework {
        name: "Create React App",
        fits: Depends("react-scripts"),
        build: &[Line::always("react-scripts build")],
        own: &["react-scripts"],
        serve: Serve::SinglePage("build"),
        ..Framework::NONE
    },
    Framework {
        name: "Vue CLI",
        fits: Depends("@vue/cli-service"),
        build: &[Line::always("vue-cli-service build")],
        own: &["vue-cli-service"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "Ember",
        fits: Depends("ember-cli"),
        build: &[Line::always("ember build --environment=production")],
        own: &["ember", "vite"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "NestJS",
        fits: Depends("@nestjs/core"),
        build: &[Line::always("nest build")],
        // It compiles at the start, into an artifact that cannot be written to.
        own: &["nest start"],
        serve: Serve::Run("node dist/main"),
        ..Framework::NONE
    },
    Framework {
        name: "AdonisJS",
        fits: Depends("@adonisjs/core"),
        build: &[Line::always("node ace build")],
        own: &["node bin/server.js", "node ace"],
        serve: Serve::Run("node build/bin/server.js"),
        env: LOOPBACK,
        ..Framework::NONE
    },
    Framework {
        name: "Vite",
        fits: All(&[Depends("vite"), File("index.html")]),
        build: &[Line::always("vite build")],
        own: &["vite"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "Parcel",
        fits: All(&[Depends("parcel"), Script("build", "parcel")]),
        own: &["parcel"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "Rsbuild",
        fits: Depends("@rsbuild/core"),
        build: &[Line::always("rsbuild build")],
        own: &["rsbuild"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "Expo for browsers",
        fits: Depends("expo"),
        build: &[Line::always("expo export --platform web")],
        own: &["expo"],
        serve: Serve::SinglePage("dist"),
        ..Framework::NONE
    },
    Framework {
        name: "a program by its `main`",
        fits: Known("main"),
        serve: Serve::Run("node {main}"),
        ..Framework::NONE
    },
    Framework {
        name: "a Bun program",
        fits: Known("bun"),
        files: &["index.ts", "server.ts", "src/index.ts", "src/server.ts", "index.js", "server.js"],
        serve: Serve::Run("bun {file}"),
        ..Framework::NONE
    },
    Framework {
        name: "a Node program",
        fits: Always,
        files: &[
            "server.js",
            "server.mjs",
            "server.cjs",
            "index.js",
            "index.mjs",
            "index.cjs",
            "app.js",
            "app.mjs",
            "main.js",
            "main.mjs",
            "src/server.js",
            "src/index.js",
            "src/app.js",
            "src/main.js",
        ],
        serve: Serve::Run("node {file}"),
        ..Framework::NONE
    },
];
