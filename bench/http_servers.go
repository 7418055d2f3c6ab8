package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"
)

// startProxies starts fleetcall proxies of one fleet, and returns their base URLs.
func startProxies(h *rig.Host, binary, upstream, redisURL string, n int) []string {
	var urls []string
	for i := range n {
		urls = append(urls, startProxy(h, binary, upstream, redisURL, fmt.Sprintf("proxy-%d", i+1)))
	}
	return urls
}

func startProxy(h *rig.Host, binary, upstream, redisURL, id string) string {
	output := &rig.Output{}
	addr, admin := freeAddr(h), freeAddr(h)
	proxy := value(process.Start(process.Spec{
		Path: binary, Args: []string{"proxy"}, Stdout: output, Stderr: output,
		Env: append(os.Environ(), "UPSTREAM="+upstream, "LISTEN_ADDR="+addr, "ADMIN_ADDR="+admin, "REDIS_URL="+redisURL,
			"COALESCE_MODE=distributed", "REPLICA_ID="+id, "LOG_LEVEL=warn"),
	}))
	h.Cleanup(func() { proxy.Stop(syscall.SIGTERM, time.Minute) })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	if err := rig.Eventually(proxy.Done(), func() error { return fetch(client, "http://"+admin+"/readyz") }); err != nil {
		must(fmt.Errorf("fleetcall proxy: %w\n%s", err, output))
	}
	return "http://" + addr
}

func freeAddr(h *rig.Host) string { return fmt.Sprintf("127.0.0.1:%d", rig.FreePort(h)) }

// startNginx starts nginx with a part of its http block and what stands in its location /,
// and returns its base URL.
func startNginx(h *rig.Host, http, location string) string {
	addr := freeAddr(h)
	conf := fmt.Sprintf(`worker_processes auto; pid nginx.pid; error_log stderr warn;
events { worker_connections 16384; multi_accept on; }
http {
    access_log off; keepalive_requests 1000000;
    client_body_temp_path client_body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    %s
    server {
        listen %s backlog=4096 reuseport;
        location / { proxy_http_version 1.1; proxy_set_header Connection ""; %s }
    }
}
`, http, addr, location)
	nginxrig.Start(h, nginxrig.Files{"nginx.conf": []byte(conf)}, "http://"+addr+"/livez")
	return "http://" + addr
}

// startBareProxy starts a process with httputil.ReverseProxy and nothing else, and returns
// its base URL.
func startBareProxy(h *rig.Host, upstream string) string {
	child := exec.Command(value(os.Executable()), "-bare", upstream)
	child.Stderr = os.Stderr
	stdin, stdout := value(child.StdinPipe()), value(child.StdoutPipe())
	must(child.Start())
	h.Cleanup(func() {
		_ = stdin.Close()
		must(child.Wait())
	})
	return "http://" + strings.TrimSpace(value(bufio.NewReader(stdout).ReadString('\n')))
}

// serveBare is what the process does: it writes its address, and serves until asked ends.
func serveBare(upstream string, asked io.Reader, answers io.Writer) error {
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Of a crowd's connections, the default would keep 2.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 4096
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, asked)
		_ = server.Close()
	}()
	if _, err := fmt.Fprintln(answers, listener.Addr()); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
