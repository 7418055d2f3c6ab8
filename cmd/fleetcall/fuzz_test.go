package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// FuzzRedisURL reads what a user has in REDIS_URL.
func FuzzRedisURL(f *testing.F) {
	for _, address := range []string{
		"redis://user:p%2Fw@host:7000/3", "rediss://:hunter2@a:1,b:2,c", "rediss://u:p@a:1,rediss://b:2, rediss://c:6379",
		"redis+sentinel://u:p%40w@a:1,b,[::1]:3/main?sentinel_password=s&db=2", "rediss+sentinel://a/main", "redis://:hun/ter2@host",
		"redis://?", "redis://host?pool_size=x", "unix:///tmp/redis.sock", "redis+sentinel://a,,b/main", "://", "",
		"redis://host?dial_timeout=-1s&max_retries=9", "redis+sentinel://a/m%zz", "redis://[::1", "redis://%@,",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		client, kind, err := newRedis(address, 70*time.Millisecond)
		if err != nil {
			// This one has nothing of the address in it.
			if err != errRedisURL {
				t.Errorf("%q: %v", address, err)
			}
			return
		}
		defer client.Close()
		var timeout time.Duration
		var addresses []string
		switch c := client.(type) {
		case *redis.ClusterClient:
			timeout, addresses = c.Options().ReadTimeout, c.Options().Addrs
		case *redis.Client:
			timeout = c.Options().ReadTimeout
			addresses = []string{c.Options().Addr}
		}
		if timeout != 70*time.Millisecond {
			t.Errorf("%q: the address changed the timeout to %v", address, timeout)
		}
		if (kind == "Cluster") != (len(addresses) > 1) {
			t.Errorf("%q: %s of %q", address, kind, addresses)
		}
		for _, a := range addresses {
			if a == "" {
				t.Errorf("%q: %s of %q", address, kind, addresses)
			}
		}
	})
}

// FuzzEnvironmentFile reads what a user has in .env.
func FuzzEnvironmentFile(f *testing.F) {
	f.Add("REDIS_URL=redis://:hunter2@host\nLOG_LEVEL=debug # more\n")
	f.Add("export DATABASE_URL='postgres://u:hunter2@h/db'\nQUERY_DELAY=\n")
	f.Add("REDIS_URL: yaml\n\n# comment\nA=\"multi\nline\"\n")
	f.Add("hunter2\n")
	f.Add("A=\"hunter2\n")
	f.Add("=hunter2\n\x00=\x00\nA=$B${C}$(D)\n")
	f.Fuzz(func(t *testing.T, content string) {
		before := os.Environ()
		defer func() {
			os.Clearenv()
			for _, setting := range before {
				name, value, _ := strings.Cut(setting, "=")
				_ = os.Setenv(name, value)
			}
		}()
		const secret = "hunter2"
		_ = os.Setenv("FLEETCALL_TEST", "from the environment")
		file := filepath.Join(t.TempDir(), ".env")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := loadEnvironment(file); err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error quotes the file: %v", content, err)
		}
		if v := os.Getenv("FLEETCALL_TEST"); v != "from the environment" {
			t.Errorf("%q: the file wins over the environment: %q", content, v)
		}
		for _, setting := range os.Environ() {
			if name, value, _ := strings.Cut(setting, "="); name != "" && value == "" {
				t.Errorf("%q: %s is set to nothing", content, name)
			}
		}
	})
}
