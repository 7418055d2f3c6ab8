package publish_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The image is built where there is no git, and from the command of the Dockerfile; this
// runs it without Docker.
func TestTheImageSaysItsVersion(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	dockerfile, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	build := regexp.MustCompile(`(?m)^RUN (?:--mount=\S+ )*\\\n((?:.*\\\n)*\s+CGO_ENABLED=0 go build .*) -o /fleetcall (\S+)$`).FindStringSubmatch(string(dockerfile))
	if build == nil || !strings.Contains(string(dockerfile), "\nARG VERSION=\n") {
		t.Fatalf("the Dockerfile has no argument VERSION, or no build of /fleetcall:\n%s", dockerfile)
	}
	binary := filepath.Join(t.TempDir(), "fleetcall")
	says := func(argument, want string) {
		t.Helper()
		run(t, root, []string{"VERSION=" + argument}, "sh", "-ec", build[1]+" -o "+binary+" "+build[2])
		if out := run(t, root, nil, binary, "version"); !strings.HasPrefix(out, want) {
			t.Errorf("with VERSION=%q, the image's fleetcall version prints %q, want %q", argument, out, want)
		}
	}
	says("v0.2.0", "fleetcall v0.2.0 ")
	commit := run(t, root, nil, "git", "rev-parse", "HEAD")
	says("", "fleetcall devel-"+commit[:12]+" ")
	run(t, root, nil, "git", "pack-refs", "--all")
	says("", "fleetcall devel-"+commit[:12]+" ")
	if err := os.RemoveAll(filepath.Join(root, ".git")); err != nil {
		t.Fatal(err)
	}
	says("", "fleetcall devel ")
	compose, err := os.ReadFile(filepath.Join(root, "deploy", "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if builds, passed := strings.Count(string(compose), "dockerfile: deploy/Dockerfile\n"), regexp.MustCompile(`dockerfile: deploy/Dockerfile\n\s+args: \{VERSION: "\$\{FLEETCALL_VERSION:-\}"\}\n`).FindAllString(string(compose), -1); builds != 1 || builds != len(passed) {
		t.Errorf("docker-compose.yml builds the image %d times, and passes FLEETCALL_VERSION on %d times", builds, len(passed))
	}
}

// The labels are those that OCI's image specification names. What differs between two
// releases comes from arguments, which docs/releasing.md takes from the tag.
func TestTheImageHasLabels(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(repository(t), "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(string(content), "\nFROM scratch\n")
	want := map[string]string{
		"title": "fleetcall", "description": "One execution of a function across a fleet of replicas",
		"source": "https://github.com/fleetcall/fleetcall", "licenses": "MIT",
		"version": "$VERSION", "revision": "$REVISION", "created": "$CREATED",
	}
	for _, found := range regexp.MustCompile(`org\.opencontainers\.image\.(\w+)="([^"]*)"`).FindAllStringSubmatch(last, -1) {
		if want[found[1]] != found[2] {
			t.Errorf("the label %s is %q, want %q", found[1], found[2], want[found[1]])
		}
		if argument, ok := strings.CutPrefix(found[2], "$"); ok && !strings.Contains(last, "\nARG "+argument+"=\n") && !strings.HasPrefix(last, "ARG "+argument+"=\n") {
			t.Errorf("the last stage has no argument %s", argument)
		}
		delete(want, found[1])
	}
	if len(want) != 0 {
		t.Errorf("the image lacks the labels %v", want)
	}
}
