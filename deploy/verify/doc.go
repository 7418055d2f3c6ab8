// Package verify holds tests of what deploys fleetcall on Kubernetes: the manifests of
// deploy/kubernetes and the chart of deploy/helm, read by the libraries that Kubernetes,
// Helm and the Prometheus operator read them with. It is a module of its own, so that
// nobody else inherits these.
package verify
