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

{{/* Whether a ServiceAccount of the operator's name asks, in CEL. Not by its namespace: kustomize's transformer changes that everywhere but in CEL. */}}
{{- define "acb.isNamedAsOperator" -}}
request.userInfo.username.startsWith('system:serviceaccount:') && request.userInfo.username.endsWith(':acb-operator')
{{- end }}

{{/* What a Quota is about, in CEL: of {variable}. */}}
{{- define "acb.quotaScope" -}}
has({{ . }}.spec.selector) && type({{ . }}.spec.selector) == type({}) && ['matchLabels', 'matchExpressions', 'names', 'groups', 'types'].exists(field, field in {{ . }}.spec.selector && size({{ . }}.spec.selector[field]) > 0) ? 'agent' : 'tenant'
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

{{/* What the schema of the values can't say, and what another release has already. */}}
{{- define "acb.checks" -}}
{{- range $key, $value := .Values.podLabels -}}
{{- if hasKey (include "acb.labels" $ | fromYaml) $key -}}
{{- fail (printf "podLabels: %s is the chart's own label, and the pods are found by it: use another key" $key) -}}
{{- end -}}
{{- end -}}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "acb-operator" -}}
{{- with $role -}}
{{- $owner := .metadata.annotations | default dict -}}
{{- $release := get $owner "meta.helm.sh/release-name" -}}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" -}}
{{- if and $release (or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace)) -}}
{{- fail (printf "a cluster has one ACB: release %s in namespace %s is here already; upgrade that one, or uninstall it first" $release $namespace) -}}
{{- end -}}
{{- end -}}
{{- end }}
