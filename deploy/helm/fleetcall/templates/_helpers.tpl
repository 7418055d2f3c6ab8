{{- define "fleetcall.selector" -}}
app.kubernetes.io/name: fleetcall
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fleetcall.podLabels" -}}
{{ include "fleetcall.selector" . }}
app.kubernetes.io/component: {{ .Values.command }}
{{- end }}

{{- define "fleetcall.labels" -}}
{{ include "fleetcall.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fleetcall.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "fleetcall.secret" -}}
{{ .Values.secret.existing | default .Release.Name }}
{{- end }}

{{- define "fleetcall.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fleetcall.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- /* An emptyDir for /tmp, where the embedded database goes. */ -}}
{{- define "fleetcall.tmp" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end }}

{{- /* The port that tells of health and metrics. */ -}}
{{- define "fleetcall.adminPort" -}}
{{ if eq .Values.command "proxy" }}admin{{ else }}http{{ end }}
{{- end }}

{{- /* A variable's value. Numbers of values.yaml are floating: 1000000 must not be 1e+06. */ -}}
{{- define "fleetcall.value" -}}
{{ if kindIs "float64" . }}{{ int64 . | toString | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}
