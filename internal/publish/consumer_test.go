package publish_test

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/fleetcall/fleetcall/internal/publish"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// consumer is a program of somebody who has no clone: an empty folder, and a module
// cache that only other consumers have filled. The go command finds the tree under test
// in a proxy.
type consumer struct {
	*testing.T
	folder string
	env    []string
}

func newConsumer(t *testing.T) *consumer {
	t.Helper()
	proxy, err := published()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	root := repository(t)
	cache := strings.TrimSpace(run(t, root, nil, "go", "env", "GOMODCACHE"))
	upstream := strings.TrimSpace(run(t, root, nil, "go", "env", "GOPROXY"))
	c := &consumer{T: t, folder: filepath.Join(home, "shop"), env: []string{
		"GOWORK=off", "CGO_ENABLED=0",
		"GOPATH=" + filepath.Join(home, "go"), "GOMODCACHE=" + moduleCache(), "GOBIN=" + filepath.Join(home, "bin"),
		// With -trimpath, what is compiled already need not be compiled again for the
		// new module cache. A read-only cache could not be removed after the test.
		"GOFLAGS=-mod=mod -trimpath -modcacherw",
		// What this machine has already is not fetched again, and was checked then.
		"GOPROXY=" + proxy.URL() + "," + publish.CacheURL(cache) + "," + upstream,
		"GONOPROXY=none", "GOPRIVATE=", "GOSUMDB=off",
	}}
	if err := os.Mkdir(c.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// hasNoModules gives the consumer a module cache of its own, which is empty.
func (c *consumer) hasNoModules() {
	c.env = append(c.env, "GOMODCACHE="+filepath.Join(filepath.Dir(c.folder), "modules"))
}

// golang runs the go command in the consumer's folder.
func (c *consumer) golang(args ...string) string {
	c.Helper()
	return run(c.T, c.folder, c.env, "go", args...)
}

// starts makes the consumer a module with the program of a folder of testdata.
func (c *consumer) starts(program string) {
	c.Helper()
	source, err := os.ReadFile(filepath.Join("testdata", program, "main.go"))
	if err != nil {
		c.Fatal(err)
	}
	c.writes("main.go", string(source))
	c.golang("mod", "init", "example.org/shop")
}

func (c *consumer) writes(name, content string) {
	c.Helper()
	if err := os.WriteFile(filepath.Join(c.folder, name), []byte(content), 0o644); err != nil {
		c.Fatal(err)
	}
}

// gets is what users type first.
func (c *consumer) gets(pkg string) {
	c.Helper()
	documented(c.T, "go get "+pkg)
	c.golang("get", pkg)
}

// builds builds the consumer's program, and returns where it is and the modules that
// are compiled in.
func (c *consumer) builds() (program string, modules []string) {
	c.Helper()
	program = filepath.Join(c.folder, "shop")
	c.golang("build", "-o", program, ".")
	c.Log(c.golang("version", "-m", program))
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		c.Fatal(err)
	}
	for _, dep := range info.Deps {
		modules = append(modules, dep.Path)
	}
	return program, modules
}

// versions are those of all modules that the consumer's go.mod leads to.
func (c *consumer) versions() map[string]string {
	c.Helper()
	all := c.golang("list", "-m", "all")
	c.Log(all)
	versions := map[string]string{}
	for line := range strings.Lines(all) {
		if path, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			versions[path] = version
		}
	}
	return versions
}

func TestAProgramThatGetsTheLocalTierCompilesInNothingElse(t *testing.T) {
	t.Parallel()
	library := open(t, repository(t)).Path() + "/coalesce"
	c := newConsumer(t)
	c.hasNoModules()
	c.starts("local")
	c.gets(library + "/local")
	if version := c.versions()[library]; version != released {
		t.Errorf("go get takes %q, want %s", version, released)
	}
	program, modules := c.builds()
	if !slices.Equal(modules, []string{library}) {
		t.Errorf("compiled in are %v, want %s alone", modules, library)
	}
	if out := run(t, c.folder, nil, program); out != "Teapot leader <nil>\n" {
		t.Errorf("the program prints %q", out)
	}
}

func TestAProgramThatGetsTheDistributedTierInheritsGoRedisAlone(t *testing.T) {
	t.Parallel()
	library := open(t, repository(t)).Path() + "/coalesce"
	c := newConsumer(t)
	c.starts("distributed")
	c.gets(library + "/distributed")
	versions := c.versions()

	const goRedis = "github.com/redis/go-redis/v9"
	alone := newConsumer(t)
	alone.writes("main.go", "package main\n\nimport _ \""+goRedis+"\"\n\nfunc main() {}\n")
	alone.golang("mod", "init", "example.org/alone")
	alone.golang("get", goRedis+"@"+versions[goRedis])
	inherited := alone.versions()
	for path, version := range versions {
		if inherited[path] == "" && path != library {
			t.Errorf("a program that gets the library inherits %s %s, which go-redis does not need", path, version)
		}
	}

	program, _ := c.builds()
	server := redisrig.Start(t)
	if out := run(t, c.folder, []string{"REDIS_ADDR=" + server.Addr}, program); out != "Teapot leader <nil>\n" {
		t.Errorf("the program prints %q", out)
	}
}

func TestAProgramKeepsTheVersionsThatItHasChosen(t *testing.T) {
	t.Parallel()
	library := open(t, repository(t)).Path() + "/coalesce"
	c := newConsumer(t)
	c.starts("pinned")
	chosen := map[string]string{
		"github.com/jackc/pgx/v5": "v5.7.0", "go.opentelemetry.io/otel": "v1.36.0", "google.golang.org/grpc": "v1.72.0",
	}
	for path, version := range chosen {
		c.golang("mod", "edit", "-require="+path+"@"+version)
	}
	// Nothing of ours is in it yet: what it downloads may stay on this machine, and
	// need not be fetched the next time.
	run(t, c.folder, []string{"GOWORK=off", "GOFLAGS=-mod=mod"}, "go", "mod", "tidy")
	c.golang("mod", "tidy")
	check := func(when string) {
		t.Helper()
		versions := c.versions()
		for path, version := range chosen {
			if versions[path] != version {
				t.Errorf("%s, %s is at %s, want %s", when, path, versions[path], version)
			}
		}
	}
	check("before")
	c.writes("tiers.go", "package main\n\nimport (\n\t_ \""+library+"/distributed\"\n\t_ \""+library+"/local\"\n)\n")
	c.gets(library + "/local")
	check("after go get of the local tier")
	c.gets(library + "/distributed")
	check("after go get of the distributed tier")
	c.golang("mod", "tidy")
	check("after go mod tidy")
	if _, modules := c.builds(); !slices.Contains(modules, library) {
		t.Errorf("compiled in are %v, without %s", modules, library)
	}
}

func TestEveryPublishedModuleCanBeGot(t *testing.T) {
	t.Parallel()
	w := open(t, repository(t))
	for _, m := range w.Published() {
		if m.Folder == "." {
			continue // a program, which the next test installs
		}
		t.Run(strings.ReplaceAll(m.Folder, "/", "_"), func(t *testing.T) {
			t.Parallel()
			c := newConsumer(t)
			c.golang("mod", "init", "example.org/shop")
			if m.Path != w.Path()+"/coalesce" { // its packages have been got by the tests above
				c.gets(m.Path)
			} else {
				c.golang("get", m.Path)
			}
			imports := ""
			for pkg := range strings.FieldsSeq(c.golang("list", m.Path+"/...")) {
				if !strings.Contains(pkg, "/internal/") {
					imports += "import _ \"" + pkg + "\"\n"
				}
			}
			c.writes("main.go", "package main\n\n"+imports+"\nfunc main() {}\n")
			c.golang("mod", "tidy")
			if version := c.versions()[m.Path]; version != released {
				t.Errorf("go get takes %q, want %s", version, released)
			}
			if _, modules := c.builds(); !slices.Contains(modules, m.Path) {
				t.Errorf("compiled in are %v, without %s", modules, m.Path)
			}
		})
	}
}

func TestTheProgramIsInstalledWithItsVersion(t *testing.T) {
	t.Parallel()
	program := open(t, repository(t)).Path() + "/cmd/fleetcall@"
	documented(t, "go install "+program+released)
	c := newConsumer(t)
	c.golang("install", program+released)
	bin := filepath.Join(filepath.Dir(c.folder), "bin", "fleetcall")
	c.Log(c.golang("version", "-m", bin))
	if out := run(t, c.folder, nil, bin, "version"); !strings.HasPrefix(out, "fleetcall "+released+" ") {
		t.Errorf("fleetcall version prints %q", out)
	}
}

// While nothing is published, users have a clone beside their own program.
func TestAProgramUsesACloneAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(document(t), "\n## While nothing is published\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, block := range strings.Split(section, "```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if strings.Contains(block, "../fleetcall") {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) != 2 {
		t.Fatalf("docs/releasing.md has %d blocks of commands for a clone at ../fleetcall, want 2", len(blocks))
	}
	server := redisrig.Start(t)
	for _, block := range blocks {
		c := newConsumer(t)
		c.starts("distributed")
		if err := os.Symlink(checkout(t), filepath.Join(filepath.Dir(c.folder), "fleetcall")); err != nil {
			t.Fatal(err)
		}
		env := slices.DeleteFunc(slices.Clone(c.env), func(s string) bool { return s == "GOWORK=off" || strings.HasPrefix(s, "GOFLAGS=") })
		env = append(env, "GOFLAGS=-trimpath -modcacherw", "REDIS_ADDR="+server.Addr)
		if out := run(t, c.folder, env, "sh", "-ec", block); !strings.HasSuffix(out, "Teapot leader <nil>\n") {
			t.Errorf("the program prints %q after\n%s", out, block)
		}
	}
}

func TestAReleasedModuleRequiresTheOthersAtItsVersion(t *testing.T) {
	t.Parallel()
	proxy, err := published()
	if err != nil {
		t.Fatal(err)
	}
	w := open(t, repository(t))
	for _, m := range w.Published() {
		name := filepath.Join(proxy.Folder, filepath.FromSlash(m.Path), "@v", released+".mod")
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := modfile.Parse(name, content, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, require := range file.Require {
			if slices.Contains(m.Requires, require.Mod.Path) && require.Mod.Version != released {
				t.Errorf("%s requires %s, want it at %s", m.Path, require.Mod, released)
			}
		}
		if len(file.Replace) > 0 {
			t.Errorf("%s replaces modules, which the go command ignores for those who get it", m.Path)
		}
	}
}
