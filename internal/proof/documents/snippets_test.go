package documents

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// snippet is a block of Go in a document.
type snippet struct {
	document string
	line     int // of the block's first line
	code     string
	after    string // from the comment before the block: more code, which readers do not see
}

// testFile returns the name of the file that the snippet is tested in. It does not end with the line,
// because a file whose name ends with _386_test.go is for one architecture alone.
func (s snippet) testFile() string { return s.name() + "_snippet_test.go" }

func (s snippet) name() string {
	stem := strings.Trim(notWord.ReplaceAllString(strings.ToLower(strings.TrimSuffix(s.document, ".md")), "_"), "_")
	return fmt.Sprintf("%s_%d", stem, s.line)
}

var notWord = regexp.MustCompile(`\W+`)

// snippets returns the fenced Go blocks of a document.
func snippets(d document) []snippet {
	var all []snippet
	var hidden, block []string
	inHidden, inBlock := false, false
	for i, line := range d.lines {
		switch {
		case inHidden:
			if inHidden = !strings.HasPrefix(line, "-->"); inHidden {
				hidden = append(hidden, line)
			}
		case inBlock && strings.HasPrefix(line, "```"):
			all = append(all, snippet{d.name, i + 1 - len(block), strings.Join(block, "\n"), strings.Join(hidden, "\n")})
			inBlock, block, hidden = false, nil, nil
		case inBlock:
			block = append(block, line)
		case strings.HasPrefix(line, "<!-- snippet"):
			inHidden, hidden = true, nil
		case strings.HasPrefix(line, "```go"):
			inBlock = true
		}
	}
	return all
}

// imports are the packages that snippets use without saying so, by name.
var imports = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "sql": "database/sql", "slog": "log/slog", "http": "net/http", "io": "io", "syscall": "syscall", "testing": "testing", "time": "time",
	"redis":        "github.com/redis/go-redis/v9",
	"pgx":          "github.com/jackc/pgx/v5",
	"coalesce":     "github.com/fleetcall/fleetcall/coalesce",
	"shadow":       "github.com/fleetcall/fleetcall/coalesce/shadow",
	"local":        "github.com/fleetcall/fleetcall/coalesce/local",
	"distributed":  "github.com/fleetcall/fleetcall/coalesce/distributed",
	"coalescetest": "github.com/fleetcall/fleetcall/coalesce/coalescetest",
	"coalescehttp": "github.com/fleetcall/fleetcall/coalesce/coalescehttp",
	"coalescezip":  "github.com/fleetcall/fleetcall/coalesce/coalescezip",
	"coalescegrpc": "github.com/fleetcall/fleetcall/coalesce/coalescegrpc",
	"coalesceprom": "github.com/fleetcall/fleetcall/coalesce/coalesceprom",
	"coalesceotel": "github.com/fleetcall/fleetcall/coalesce/coalesceotel",
	"prometheus":   "github.com/prometheus/client_golang/prometheus",
	"chi":          "github.com/go-chi/chi/v5",
	"middleware":   "github.com/go-chi/chi/v5/middleware",
	"echo":         "github.com/labstack/echo/v4",
	"grpc":         "google.golang.org/grpc",
	"insecure":     "google.golang.org/grpc/credentials/insecure",
	"shoppb":       "github.com/fleetcall/fleetcall/examples/grpc/shoppb",
}

// preludes are the files of testdata with what snippets use without declaring it.
var preludes = []string{"prelude_test.go", "servers_test.go"}

// file returns the Go file that a snippet becomes: declarations stand as they are,
// statements in a function, which an example calls when its output is given. The
// compiler's errors name the document's lines.
func (s snippet) file(dir string) ([]byte, error) {
	at := fmt.Sprintf("//line %s:%d\n", filepath.Join(dir, filepath.FromSlash(s.document)), s.line)
	body := at + s.code + "\n"
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package shop\n"+body, 0); err != nil {
		if body, err = s.function(body); err != nil {
			return nil, err
		}
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), "", "package shop\n"+body, 0)
	if err != nil {
		return nil, err
	}
	var used []string
	for _, name := range parsed.Unresolved {
		if importPath, known := imports[name.Name]; known && !slices.Contains(used, importPath) {
			used = append(used, importPath)
		}
	}
	var file strings.Builder
	file.WriteString("package shop\n\n")
	for _, importPath := range used {
		fmt.Fprintf(&file, "import %q\n", importPath)
	}
	file.WriteString(body)
	return []byte(file.String()), nil
}

func (s snippet) function(statements string) (string, error) {
	code, output := s.after, ""
	if before, after, found := strings.Cut(s.after, "// Output:"); found {
		code, output = before, "// Output:"+after
	}
	function := "func " + s.name() + "() error {\n" + statements
	parsed, err := parser.ParseFile(token.NewFileSet(), "", "package shop\n"+function+"}\n", 0)
	if err != nil {
		return "", err
	}
	list := parsed.Decls[0].(*ast.FuncDecl).Body.List
	// What is declared for the reader's next lines is used here.
	for _, name := range declared(list) {
		function += "_ = " + name + "\n"
	}
	function += code + "\n"
	if _, returns := list[len(list)-1].(*ast.ReturnStmt); !returns {
		function += "return nil\n"
	}
	function += "}\n"
	if output != "" {
		function += fmt.Sprintf("\nfunc Example_%s() {\n\tif err := %s(); err != nil {\n\t\tfmt.Println(err)\n\t}\n\t%s\n}\n", s.name(), s.name(), output)
	}
	return function, nil
}

// declared returns the variables of a function's outermost block, except where a
// return ends it.
func declared(list []ast.Stmt) []string {
	var names []string
	for _, statement := range list {
		switch statement := statement.(type) {
		case *ast.AssignStmt:
			for _, left := range statement.Lhs {
				if name, ok := left.(*ast.Ident); ok && statement.Tok == token.DEFINE && name.Name != "_" && !slices.Contains(names, name.Name) {
					names = append(names, name.Name)
				}
			}
		case *ast.DeclStmt:
			for _, spec := range statement.Decl.(*ast.GenDecl).Specs {
				if value, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range value.Names {
						names = append(names, name.Name)
					}
				}
			}
		case *ast.ReturnStmt:
			return nil
		}
	}
	return names
}

// generate writes the snippets of all documents as one package of a workspace that
// has every module of this repository.
func generate(t *testing.T, dir string) (compiled, run int) {
	t.Helper()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range documents(t) {
		for _, s := range snippets(d) {
			file, err := s.file(root(t))
			if err != nil {
				t.Errorf("%s:%d: %v", s.document, s.line, err)
				continue
			}
			write(s.testFile(), string(file))
			compiled++
			if bytes.Contains(file, []byte("// Output:")) {
				run++
			}
			if formatted, err := format.Source([]byte(s.code)); err != nil || string(formatted) != s.code {
				t.Errorf("%s:%d: this snippet is not formatted as gofmt does it", s.document, s.line)
			}
		}
	}
	for _, prelude := range preludes {
		write(prelude, string(must(os.ReadFile(filepath.Join("testdata", prelude)))))
	}
	write("go.mod", "module shop\n\ngo 1.26.0\n")
	work, err := os.ReadFile(filepath.Join(root(t), "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	write("go.work", folder.ReplaceAllString(string(work), "${1}"+root(t)+"${2}")+"\nuse "+dir+"\n")
	sums, err := os.ReadFile(filepath.Join(root(t), "go.work.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write("go.work.sum", string(sums))
	return compiled, run
}

// folder is the dot that a folder of go.work begins with.
var folder = regexp.MustCompile(`(?m)^(\s+(?:.* => )?)\.(/.*)?$`)

func goCommand(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK="+filepath.Join(dir, "go.work"), "GOFLAGS=-mod=readonly"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestEverySnippetCompilesAndPrintsWhatItSays(t *testing.T) {
	dir := t.TempDir()
	compiled, run := generate(t, dir)
	if compiled < 25 || run < 15 {
		t.Fatalf("found %d snippets, %d of them with their output; where are the others?", compiled, run)
	}
	server := redisrig.Start(t)
	goCommand(t, dir, nil, "vet", ".")
	out := goCommand(t, dir, []string{"SNIPPETS_REDIS=" + server.Addr}, "test", "-count=1", "-v", "-run", "^Example", ".")
	if passed := strings.Count(out, "--- PASS: Example_"); passed != run {
		t.Errorf("%d of %d snippets were run:\n%s", passed, run, out)
	}
	t.Logf("%d snippets compiled, %d of them run", compiled, run)
}

// A snippet that does not compile, or prints something else, is found at its line.
func TestASnippetThatIsWrongIsFound(t *testing.T) {
	fence := "```"
	for code, want := range map[string]string{
		"x := distributed.Open":                        "",
		"var Here = distributed.NoSuchName":            "docs/x.md:6: undefined: distributed.NoSuchName",
		"p := queryAnything(ctx, id)":                  "docs/x.md:6: undefined: queryAnything",
		"p, err := queryProduct(ctx, id) // no role\n": "got:",
	} {
		dir := t.TempDir()
		generate(t, dir)
		d := document{"docs/x.md", []string{"<!-- snippet", "fmt.Println(1)", "// Output: 2", "-->", fence + "go", strings.TrimSpace(code), fence}}
		if strings.HasPrefix(code, "x :=") {
			d.lines[2] = "// Output: 1"
		}
		s := snippets(d)[0]
		file, err := s.file("")
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range must(filepath.Glob(filepath.Join(dir, "*_test.go"))) {
			if !slices.Contains(preludes, filepath.Base(other)) {
				_ = os.Remove(other)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, s.testFile()), file, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "test", "-run", "^Example_docs_x", ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(dir, "go.work"), "SNIPPETS_REDIS=127.0.0.1:1")
		out, err := cmd.CombinedOutput()
		if (err != nil) != (want != "") || !strings.Contains(string(out), want) {
			t.Errorf("%s: want %q, got %v:\n%s", code, want, err, out)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
