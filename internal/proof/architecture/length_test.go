package architecture

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What is longer is seldom read as a whole. Where it must be, a comment gives the
// reason: "// long: …", at the file's top or in the function's doc comment.
const (
	maxFile     = 400
	maxFunction = 60
)

var reason = regexp.MustCompile(`(?m)^// long: \S.*`)

// long are the files, and the functions by their folder, that are too long today,
// without a reason. It stays empty.
var long = []string{}

// lengths returns what is longer than it may be, and a sentence for each; and
// sentences for each reason that nothing needs.
func lengths(file string, source []byte) (tooLong map[string]string, needless []string, err error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, source, parser.ParseComments)
	if err != nil {
		return nil, nil, err
	}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	tooLong = map[string]string{}
	check := func(what, name string, lines, limit int, explained bool) {
		switch {
		case lines > limit && !explained:
			tooLong[name] = fmt.Sprintf("%s %s has %d lines, more than the %d that are read at once: split it, or give the reason in a comment at its top, // long: …", what, name, lines, limit)
		case lines <= limit && explained:
			needless = append(needless, fmt.Sprintf("%s %s has %d lines, which need no reason: remove its comment // long: …", what, name, lines))
		}
	}
	explained := slices.ContainsFunc(parsed.Comments, func(c *ast.CommentGroup) bool { return c.End() < parsed.Package && explains(c) })
	check("file", file, bytes.Count(source, []byte("\n")), maxFile, explained)
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			check("function", path.Dir(file)+"."+functionName(f), line(f.End())-line(f.Pos())+1, maxFunction, f.Doc != nil && explains(f.Doc))
		}
	}
	return tooLong, needless, nil
}

func explains(c *ast.CommentGroup) bool {
	return slices.ContainsFunc(c.List, func(c *ast.Comment) bool { return reason.MatchString(c.Text) })
}

// functionName is a function's name, or a method's behind its receiver's type.
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	for {
		switch of := t.(type) {
		case *ast.StarExpr:
			t = of.X
		case *ast.IndexExpr:
			t = of.X
		case *ast.IndexListExpr:
			t = of.X
		case *ast.Ident:
			return of.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

func TestFilesAndFunctionsAreShortEnoughToBeRead(t *testing.T) {
	top := root(t)
	found := map[string]bool{}
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(file) != ".go" {
			return nil
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		tooLong, needless, err := lengths(filepath.ToSlash(relative), source)
		for name, sentence := range tooLong {
			found[name] = true
			if !slices.Contains(long, name) {
				t.Error(sentence)
			}
		}
		for _, sentence := range needless {
			t.Error(sentence)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range long {
		if !found[name] {
			t.Errorf("%s is too long no more, or gone: remove it from long.", name)
		}
	}
}

func TestWhatIsTooLongIsFoundUnlessItGivesAReason(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	function := func(comment string, n int) string {
		return "package p\n\n" + comment + "func (t *T[X]) f() {\n" + lines(n-2) + "}\n"
	}
	file := func(comment string, n int) string {
		return comment + "package p\n" + strings.Repeat("\n", n-1-strings.Count(comment, "\n"))
	}
	for _, c := range []struct{ name, source, tooLong, needless string }{
		{"a function at the limit", function("", maxFunction), "", ""},
		{"a long function", function("", maxFunction+1), "d.T.f", ""},
		{"a long function with a reason", function("// f is f.\n// long: its steps are one.\n", maxFunction+1), "", ""},
		{"a long function whose reason is empty", function("// long:\n", maxFunction+1), "d.T.f", ""},
		{"a short function with a reason", function("// long: its steps are one.\n", maxFunction), "", "d.T.f"},
		{"a file at the limit", file("", maxFile), "", ""},
		{"a long file", file("", maxFile+1), "d/p.go", ""},
		{"a long file with a reason", file("// long: it is a table.\n\n", maxFile+1), "", ""},
		{"a short file with a reason", file("// long: it is a table.\n\n", maxFile), "", "d/p.go"},
	} {
		tooLong, needless, err := lengths("d/p.go", []byte(c.source))
		if err != nil {
			t.Fatal(err)
		}
		if len(tooLong) > 1 || (c.tooLong != "") != (tooLong[c.tooLong] != "") || len(tooLong) == 1 && c.tooLong == "" {
			t.Errorf("%s: too long is %v", c.name, tooLong)
		}
		if c.needless == "" && len(needless) != 0 || c.needless != "" && (len(needless) != 1 || !strings.Contains(needless[0], c.needless)) {
			t.Errorf("%s: needless is %v", c.name, needless)
		}
	}
}
