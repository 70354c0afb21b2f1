// Rules for the page's scripts: ES modules that the browser loads as they are.
const BROWSER =
  "AbortSignal Blob ResizeObserver URL URLSearchParams addEventListener document fetch getComputedStyle history " +
  "localStorage location matchMedia navigator sessionStorage setInterval setTimeout uPlot";

export default [
  {
    files: ["**/*.js"],
    languageOptions: {
      ecmaVersion: 2021,
      sourceType: "module",
      globals: Object.fromEntries(BROWSER.split(" ").map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-undef": "error",
      "no-unused-vars": "error",
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-redeclare": "error",
      "no-unreachable": "error",
      "no-fallthrough": "error",
      "no-dupe-keys": "error",
      "no-duplicate-imports": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-nested-ternary": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "max-len": ["error", { code: 120, ignoreTemplateLiterals: true, ignoreStrings: true }],
    },
  },
];
