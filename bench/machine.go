package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// machine describes where the figures come from, a line each.
func machine() []string {
	return []string{
		fmt.Sprintf("%d cores, %s, %s/%s", runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH),
		strings.Join([]string{
			strings.Replace(runtime.Version(), "go", "Go ", 1),
			"Redis " + version("redis-server", "--version"),
			"PostgreSQL " + version(postgresPath(), "--version"),
			"nginx " + version(nginxPath(), "-v"),
		}, ", "),
		"Peers: " + strings.Join(peerVersions(), ", "),
	}
}

// loadAverage says how many processes wanted the machine when the run began: others than the run's
// own make every figure of a large fleet worse. It is "" where that is not known.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	load, _, _ := strings.Cut(string(text), " ")
	return "Load average when the run began: " + load
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	name, _, _ := strings.Cut(rest, "\n")
	return strings.TrimLeft(name, "\t :")
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// version returns the version that a program says it has.
func version(path string, flag string) string {
	output, err := exec.Command(path, flag).CombinedOutput()
	if err != nil {
		return "not installed"
	}
	return versionNumber.FindString(string(output))
}

// The servers are found where internal/rig and internal/fleet find them.

func postgresPath() string {
	if path, err := exec.LookPath("postgres"); err == nil {
		return path
	}
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(paths) == 0 {
		return "postgres"
	}
	return slices.Max(paths)
}

func nginxPath() string {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path
	}
	return "/usr/sbin/nginx"
}

var measured = []string{
	"golang.org/x/sync", "github.com/samber/go-singleflightx", "resenje.org/singleflight", "github.com/viccon/sturdyc",
	"github.com/redis/rueidis", "github.com/bsm/redislock", "github.com/redis/go-redis/v9",
}

func peerVersions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var list []string
	for _, module := range info.Deps {
		if slices.Contains(measured, module.Path) {
			list = append(list, module.Path+" "+module.Version)
		}
	}
	return list
}
