package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// program stands for the binary: what the package says of it does not depend on it.
const program = "#!/bin/sh\necho fleetcall v0.2.0\n"

// packed makes the package of a version in a folder of its own.
func packed(t *testing.T, version, arch string) string {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1767323045") // 2026-01-02 03:04:05 UTC
	binary := filepath.Join(t.TempDir(), "fleetcall")
	if err := os.WriteFile(binary, []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	name, err := pack(root, version, arch, binary, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// run runs one of dpkg's programs, in English and in no time zone but UTC.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: what it would read of the package is not checked", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestThePackageHasTheProgramItsUnitsAndItsSettings(t *testing.T) {
	name := packed(t, "v0.2.0", "arm64")
	if base := filepath.Base(name); base != "fleetcall_0.2.0_arm64.deb" {
		t.Errorf("the package is called %s", base)
	}
	for field, want := range map[string]string{
		"Package": "fleetcall", "Version": "0.2.0", "Architecture": "arm64", "Depends": "passwd", "Section": "net",
		"Homepage": "https://github.com/fleetcall/fleetcall",
	} {
		if got := strings.TrimSpace(run(t, "dpkg-deb", "--field", name, field)); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	list := run(t, "dpkg-deb", "--contents", name)
	t.Log("\n" + list)
	for _, file := range []string{
		"-rwxr-xr-x root/root %s 2026-01-02 03:04 ./usr/bin/fleetcall\n",
		"-rw-r--r-- root/root %s 2026-01-02 03:04 ./usr/lib/systemd/system/fleetcall.service\n",
		"-rw-r--r-- root/root %s 2026-01-02 03:04 ./usr/lib/systemd/system/fleetcall-proxy@.service\n",
		"-rw------- root/root %s 2026-01-02 03:04 ./etc/fleetcall/fleetcall.env\n",
		"-rw-r--r-- root/root %s 2026-01-02 03:04 ./usr/share/doc/fleetcall/copyright\n",
	} {
		before, after, _ := strings.Cut(file, "%s")
		found := false
		for line := range strings.Lines(list) {
			found = found || strings.HasPrefix(line, before) && strings.HasSuffix(line, after)
		}
		if !found {
			t.Errorf("there is no %s", file)
		}
	}
	if conffiles := run(t, "dpkg-deb", "--info", name, "conffiles"); conffiles != "/etc/fleetcall/fleetcall.env\n" {
		t.Errorf("conffiles are %q", conffiles)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		path := filepath.Join("scripts", script)
		run(t, "sh", "-n", path)
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, "dpkg-deb", "--info", name, script); got != string(want) {
			t.Errorf("%s is\n%s", script, got)
		}
	}
}

func TestAVersionBeforeAReleaseIsOlderThanIt(t *testing.T) {
	name := packed(t, "v0.2.0-rc.1", "amd64")
	version := strings.TrimSpace(run(t, "dpkg-deb", "--field", name, "Version"))
	run(t, "dpkg", "--compare-versions", version, "lt", "0.2.0")
	run(t, "dpkg", "--compare-versions", version, "gt", "0.1.9")
}

func TestThePackageIsTheSameWhoeverMakesIt(t *testing.T) {
	one, err := os.ReadFile(packed(t, "v0.2.0", "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(packed(t, "v0.2.0", "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, other) {
		t.Error("two packages of the same binary, version and time differ")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if _, err := pack(root, "v0.2.0", "amd64", "main.go", t.TempDir()); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("without a time: %v", err)
	}
}

// The package is installed into a folder that stands for a machine: with dpkg's database
// and the users of a new one, and without the machine's own.
func TestThePackageIsInstalledAndPurged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may install packages: installing is not checked")
	}
	name := packed(t, "v0.2.0", strings.TrimSpace(run(t, "dpkg", "--print-architecture")))
	machine := t.TempDir()
	for file, content := range map[string]string{
		"var/lib/dpkg/status": "", "var/lib/dpkg/updates/.new": "", "var/lib/dpkg/info/format": "1\n", "var/log/.new": "",
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:20000::::::\n", "etc/gshadow": "root:*::\n",
		"etc/login.defs": "SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\n",
	} {
		write(t, filepath.Join(machine, file), content)
	}
	if err := os.Remove(filepath.Join(machine, "var/lib/dpkg/updates/.new")); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) {
		t.Helper()
		// Its dependencies are this machine's, whose shell runs its scripts, too.
		t.Log(run(t, "dpkg", append([]string{"--root=" + machine, "--force-script-chrootless", "--force-depends", "--force-confold"}, args...)...))
	}
	read := func(file string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(machine, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	dpkg("--install", name)
	if read("usr/bin/fleetcall") != program || !strings.Contains(read("usr/lib/systemd/system/fleetcall.service"), "\nUser=fleetcall\n") {
		t.Error("the program or its unit is another")
	}
	users := read("etc/passwd")
	if !strings.Contains(users, "\nfleetcall:") || !strings.Contains(users, ":/var/lib/fleetcall:/usr/sbin/nologin\n") || !strings.Contains(read("etc/group"), "\nfleetcall:") {
		t.Errorf("the users are\n%s", users)
	}
	const mine = "REDIS_URL=redis://mine:6379/0\n"
	write(t, filepath.Join(machine, "etc/fleetcall/fleetcall.env"), mine)
	dpkg("--install", packed(t, "v0.3.0", strings.TrimSpace(run(t, "dpkg", "--print-architecture"))))
	if read("etc/fleetcall/fleetcall.env") != mine || strings.Count(read("etc/passwd"), "fleetcall:") != strings.Count(users, "fleetcall:") {
		t.Error("an upgrade has changed the settings, or made a second user")
	}
	dpkg("--remove", "fleetcall")
	if read("etc/fleetcall/fleetcall.env") != mine {
		t.Error("the settings are gone with the program")
	}
	dpkg("--purge", "fleetcall")
	for _, gone := range []string{"usr/bin/fleetcall", "etc/fleetcall/fleetcall.env", "usr/lib/systemd/system/fleetcall.service"} {
		if _, err := os.Lstat(filepath.Join(machine, gone)); err == nil {
			t.Errorf("%s is left", gone)
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
