{{/* Labels of everything that the chart makes. */}}
{{- define "acb.labels" -}}
{{ include "acb.selector" . }}
app.kubernetes.io/part-of: acb
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which the operator's pods are found. */}}
{{- define "acb.selector" -}}
app.kubernetes.io/name: acb
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Who the operator is to the API server. */}}
{{- define "acb.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:acb-operator
{{- end }}

{{/* Whether an optional kind is made: {enabled, kind, context}. */}}
{{- define "acb.enabled" -}}
{{- if kindIs "bool" .enabled -}}
{{- if .enabled }}true{{ end -}}
{{- else if .context.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
true
{{- end -}}
{{- end }}

{{/* The ports of the brokers, as a list in YAML. */}}
{{- define "acb.kafkaPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.bus.bootstrapServers -}}
{{- $ports = append $ports (trim . | splitList ":" | last | int) -}}
{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end }}
