// Rules for the page's one script, which runs in the browser without modules.
export default [
  {
    files: ["**/*.js"],
    languageOptions: {
      ecmaVersion: 2021,
      sourceType: "script",
      globals: Object.fromEntries(
        (
          "document window location fetch localStorage sessionStorage setTimeout clearTimeout setInterval " +
          "clearInterval console URL URLSearchParams Blob AbortController getComputedStyle matchMedia " +
          "requestAnimationFrame ResizeObserver Intl history navigator uPlot Response Node CSS addEventListener " +
          "devicePixelRatio innerWidth"
        )
          .split(" ")
          .map((name) => [name, "readonly"]),
      ),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-undef": "error",
      "no-unused-vars": "error",
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-implicit-globals": "off",
      "no-redeclare": "error",
      "no-unreachable": "error",
      "no-fallthrough": "error",
      "no-dupe-keys": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-nested-ternary": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "max-len": ["error", { code: 120, ignoreTemplateLiterals: true, ignoreStrings: true }],
    },
  },
];
