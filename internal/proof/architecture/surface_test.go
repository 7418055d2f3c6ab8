package architecture

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
)

// shown are the public names that show an internal type today. It must become
// empty.
var shown = map[string]string{}

// A surface walks what a user of a package sees: exported names, their signatures,
// fields and methods, and those of the unexported types that they hand out.
type surface struct {
	pkg   *types.Package
	seen  map[types.Type]bool
	found map[string]string // the name that shows an internal type, and the type
}

// internals returns the exported names of a package that show a type of an
// internal package, each with that type.
func internals(pkg *types.Package) map[string]string {
	s := &surface{pkg: pkg, seen: map[types.Type]bool{}, found: map[string]string{}}
	for _, name := range pkg.Scope().Names() {
		if token.IsExported(name) {
			s.object(short(pkg.Path())+"."+name, pkg.Scope().Lookup(name))
		}
	}
	return s.found
}

func (s *surface) object(name string, o types.Object) {
	if t, ok := o.(*types.TypeName); ok && !t.IsAlias() {
		s.declared(name, t.Type().(*types.Named))
		return
	}
	s.look(name, o.Type())
}

// declared walks a type that the package declares.
func (s *surface) declared(name string, t *types.Named) {
	if s.seen[t] {
		return
	}
	s.seen[t] = true
	for p := range t.TypeParams().TypeParams() {
		s.look(name, p.Constraint())
	}
	s.look(name, t.Underlying())
	for m := range t.Methods() {
		if m.Exported() {
			s.look(name+"."+m.Name(), m.Type())
		}
	}
}

// look walks a type that stands in a declaration.
func (s *surface) look(name string, t types.Type) {
	switch t := t.(type) {
	case *types.Alias:
		s.look(name, types.Unalias(t))
	case *types.Named:
		s.named(name, t)
	case *types.Pointer:
		s.look(name, t.Elem())
	case *types.Slice:
		s.look(name, t.Elem())
	case *types.Array:
		s.look(name, t.Elem())
	case *types.Chan:
		s.look(name, t.Elem())
	case *types.Map:
		s.look(name, t.Key())
		s.look(name, t.Elem())
	case *types.Signature:
		s.signature(name, t)
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() || f.Embedded() {
				s.look(name+"."+f.Name(), f.Type())
			}
		}
	case *types.Interface:
		for e := range t.EmbeddedTypes() {
			s.look(name, e)
		}
		for m := range t.ExplicitMethods() {
			if m.Exported() {
				s.look(name+"."+m.Name(), m.Type())
			}
		}
	case *types.Union:
		for term := range t.Terms() {
			s.look(name, term.Type())
		}
	}
}

func (s *surface) named(name string, t *types.Named) {
	for arg := range t.TypeArgs().Types() {
		s.look(name, arg)
	}
	pkg := t.Obj().Pkg()
	if pkg == nil {
		return // error, comparable
	}
	if pkg != s.pkg && has(pkg.Path(), "internal") {
		s.found[name] = short(pkg.Path()) + "." + t.Obj().Name()
		return
	}
	if pkg == s.pkg && !t.Obj().Exported() {
		s.declared(name, t.Origin())
	}
}

func (s *surface) signature(name string, t *types.Signature) {
	for p := range t.TypeParams().TypeParams() {
		s.look(name, p.Constraint())
	}
	for p := range t.Params().Variables() {
		s.look(name, p.Type())
	}
	for r := range t.Results().Variables() {
		s.look(name, r.Type())
	}
}

// A user can neither name nor make a value of an internal type: what shows one is
// either of no use to users, and should not be exported, or wants a public type.
func TestNoPublicNameOfTheLibraryShowsAnInternalType(t *testing.T) {
	var public []string
	for _, p := range goList(t, "work") {
		if matches(short(p.ImportPath), "coalesce/...") && !has(p.ImportPath, "internal") && p.Name != "main" && len(p.GoFiles) > 0 {
			public = append(public, p.ImportPath)
		}
	}
	// Programs are left out: each has the commit in it, and would be compiled anew
	// after every one.
	exports := map[string]string{}
	for _, p := range goList(t, slices.Concat([]string{"-export", "-deps"}, public)...) {
		exports[p.ImportPath] = p.Export
	}
	imports := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		file, ok := exports[path]
		if !ok {
			return nil, fmt.Errorf("go list knows no package %s", path)
		}
		return os.Open(file)
	})
	found := map[string]string{}
	for _, path := range public {
		pkg, err := imports.Import(path)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(found, internals(pkg))
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if shown[name] == "" {
			t.Errorf("%s shows %s, which users can neither name nor make: do not export it, or give it a public type.", name, found[name])
		}
	}
	for name := range shown {
		if found[name] == "" {
			t.Errorf("%s shows no internal type any more: remove it from shown.", name)
		}
	}
}

func TestEveryPlaceOfAnInternalTypeIsFound(t *testing.T) {
	hidden := types.NewPackage("x/internal/hidden", "hidden")
	secret := types.NewNamed(types.NewTypeName(token.NoPos, hidden, "Secret", nil), types.NewStruct(nil, nil), nil)
	hidden.Scope().Insert(secret.Obj())
	hidden.MarkComplete()
	const source = `package p

import "x/internal/hidden"

type (
	Field     struct{ F map[string][]*hidden.Secret }
	Method    struct{}
	Interface interface{ M() hidden.Secret }
	Generic[T interface{ ~[]hidden.Secret }] struct{}
	Alias     = hidden.Secret
	Fine      struct{ f hidden.Secret }
	unseen    struct{}
	handed    struct{}
)

func (Method) M(hidden.Secret)     {}
func (Fine) m(hidden.Secret)       {}
func (unseen) M(hidden.Secret)     {}
func (handed) M(hidden.Secret)     {}
func Hands() (handed, error)       { return handed{}, nil }
func Takes(func(chan hidden.Secret)) {}
func fine(hidden.Secret)           {}

var Var [1]hidden.Secret
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	config := types.Config{Importer: importing{hidden}}
	pkg, err := config.Check("p", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p.Alias", "p.Field.F", "p.Generic", "p.Hands.M", "p.Interface.M", "p.Method.M", "p.Takes", "p.Var"}
	if got := slices.Sorted(maps.Keys(internals(pkg))); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// importing knows one package.
type importing struct{ pkg *types.Package }

func (i importing) Import(string) (*types.Package, error) { return i.pkg, nil }
