package documents

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands returns what a document says to run: the lines of its indented and fenced
// blocks, except those of another language, and what stands between backquotes.
func commands(d document) []string {
	var all, prose []string
	fenced, shell := false, false
	for _, line := range d.lines {
		switch language, fence := strings.CutPrefix(line, "```"); {
		case fence:
			fenced = !fenced
			shell = slices.Contains([]string{"", "sh", "bash", "console"}, language)
		case fenced && shell, !fenced && strings.HasPrefix(line, "    "):
			for part := range strings.SplitSeq(line, " & ") {
				all = append(all, strings.TrimSpace(part))
			}
		case !fenced:
			prose = append(prose, line)
		}
	}
	for _, span := range backquoted.FindAllStringSubmatch(strings.Join(prose, "\n"), -1) {
		all = append(all, strings.Join(strings.Fields(span[1]), " "))
	}
	return all
}

var backquoted = regexp.MustCompile("`([^`]+)`")

// what returns the words of a command that begins with one of the programs, after
// settings of variables and words such as time, or nil.
func what(command string, programs ...string) []string {
	command, _, _ = strings.Cut(command, " #")
	words := strings.Fields(command)
	for len(words) > 0 && (words[0] == "time" || words[0] == "sudo" || assignment.MatchString(words[0])) {
		words = words[1:]
	}
	if len(words) < 2 || !slices.Contains(programs, words[0]) {
		return nil
	}
	return words[1:]
}

var assignment = regexp.MustCompile(`^[A-Z_]+=`)

// makefile is what can be made, and by which variables.
type makefile struct{ targets, variables []string }

func readMakefile(t *testing.T) (m makefile) {
	t.Helper()
	text := string(must(os.ReadFile(filepath.Join(root(t), "Makefile"))))
	for _, found := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(text, -1) {
		m.targets = append(m.targets, found[1])
	}
	for _, found := range regexp.MustCompile(`\$\(([A-Z]+)\)`).FindAllStringSubmatch(text, -1) {
		m.variables = append(m.variables, found[1])
	}
	return m
}

// wrong returns why make cannot be called so, or "".
func (m makefile) wrong(words []string) string {
	for _, word := range words {
		variable, _, isSetting := strings.Cut(word, "=")
		if isSetting && !slices.Contains(m.variables, variable) {
			return "the Makefile has no variable " + variable
		}
		if !isSetting && !slices.Contains(m.targets, word) {
			return "the Makefile has no target " + word
		}
	}
	return ""
}

func TestEveryMakeTargetThatADocumentNamesExists(t *testing.T) {
	m := readMakefile(t)
	checked := 0
	for _, d := range documents(t) {
		for _, command := range commands(d) {
			words := what(command, "make")
			checked += len(words)
			if why := m.wrong(words); why != "" {
				t.Errorf("%s: %q: %s", d.name, command, why)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d targets were found", checked)
	}
	if m.wrong([]string{"demo"}) != "" || m.wrong([]string{"demos"}) == "" || m.wrong([]string{"chaos", "TIMES=1m"}) == "" {
		t.Error("this test cannot tell a target from none")
	}
}

// program is fleetcall as its --help describes it: the help of each command.
type program map[string]string

func help(t *testing.T) program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "fleetcall")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/fleetcall")
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("fleetcall %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	p := program{}
	for _, found := range regexp.MustCompile(`(?m)^  ([a-z]+)(?: \[flags\]| .*)?$`).FindAllStringSubmatch(run("--help"), -1) {
		p[found[1]] = run(found[1], "--help")
	}
	if len(p) < 5 {
		t.Fatalf("fleetcall --help lists %d commands", len(p))
	}
	return p
}

// spans have names that look like commands.
var spans = []string{"flight", "wait", "function"}

// wrong returns why fleetcall cannot be called so, or "".
func (p program) wrong(words []string) string {
	if len(words) == 0 || words[0] == "COMMAND" || words[0] == "--help" || slices.Contains(spans, words[0]) {
		return ""
	}
	help, ok := p[words[0]]
	if !ok {
		return "fleetcall has no command " + words[0]
	}
	for _, word := range words[1:] {
		flag, _, _ := strings.Cut(word, "=")
		if !strings.HasPrefix(flag, "-") {
			continue
		}
		if !regexp.MustCompile(`(?m)(^|[\s,])` + regexp.QuoteMeta(flag) + `($|[\s,=])`).MatchString(help) {
			return fmt.Sprintf("fleetcall %s has no flag %s", words[0], flag)
		}
	}
	return ""
}

// variables are those that the commands' help names, and those of OpenTelemetry,
// which its own library reads.
func (p program) variables() []string {
	var all []string
	for _, help := range p {
		for _, found := range regexp.MustCompile(`\(\$([A-Z_]+)\)`).FindAllStringSubmatch(help, -1) {
			if !slices.Contains(all, found[1]) {
				all = append(all, found[1])
			}
		}
	}
	return all
}

func TestEveryCommandAndFlagThatADocumentNamesExists(t *testing.T) {
	p := help(t)
	checked := 0
	for _, d := range documents(t) {
		for _, command := range commands(d) {
			words := what(command, "fleetcall", "./bin/fleetcall", "bin/fleetcall")
			if words != nil {
				checked++
			}
			if why := p.wrong(words); why != "" {
				t.Errorf("%s: %q: %s", d.name, command, why)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d commands were found", checked)
	}
	if p.wrong([]string{"load", "-n", "3", "--ids=1"}) != "" || p.wrong([]string{"loads"}) == "" || p.wrong([]string{"load", "--id-range"}) == "" {
		t.Error("this test cannot tell a command from none")
	}
}

func TestTheConfigurationPageHasExactlyTheVariables(t *testing.T) {
	real := help(t).variables()
	var documented []string
	for _, line := range find(t, "docs/configuration.md").lines {
		if row, ok := strings.CutPrefix(line, "| `"); ok {
			cell, _, _ := strings.Cut(row, "|")
			for _, name := range backquoted.FindAllStringSubmatch("`"+cell, -1) {
				if setting.MatchString(name[1]) {
					documented = append(documented, name[1])
				}
			}
		}
	}
	for _, name := range real {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/configuration.md has no row for %s", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(real, name) && !strings.HasPrefix(name, "OTEL_") {
			t.Errorf("docs/configuration.md has a row for %s, which no command reads", name)
		}
	}
	ours := regexp.MustCompile(`^(COALESCE|DB_POOL|LOAD|DEMO|FLEET|SHUTDOWN|LOG)_`)
	for _, d := range documents(t) {
		if d.name == "CHANGELOG.md" {
			continue // it names what was, too
		}
		for _, command := range commands(d) {
			for _, name := range variable.FindAllString(command, -1) {
				if ours.MatchString(name) && !slices.Contains(real, name) {
					t.Errorf("%s names %s, which no command reads", d.name, name)
				}
			}
		}
	}
}

// setting is the name of a variable where nothing else stands.
var setting = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

var variable = regexp.MustCompile(`\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)+\b`)
