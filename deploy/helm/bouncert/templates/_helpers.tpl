{{- /* Labels of every object, at the indentation of metadata. */ -}}
{{- define "bouncert.labels" -}}
    app.kubernetes.io/name: bouncert
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* What the daemon does to objects that live in namespaces. A test runs the whole pipeline
       under these rules and fails if one is missing or was not used. */ -}}
{{- define "bouncert.namespacedRules" -}}
  - apiGroups: [kubedb.com]
    resources: [pgbouncers]
    verbs: [get, list, watch, patch]
  - apiGroups: [kubedb.com]
    resources: [pgbouncers/status]
    verbs: [patch]
  - apiGroups: [ops.kubedb.com]
    resources: [pgbounceropsrequests]
    verbs: [get, list, watch, create, patch, delete]
  - apiGroups: [ops.kubedb.com]
    resources: [pgbounceropsrequests/status]
    verbs: [patch]
  - apiGroups: [appcatalog.appscode.com]
    resources: [appbindings]
    verbs: [get, list, watch, create, patch]
  - apiGroups: [cert-manager.io]
    resources: [issuers]
    verbs: [get, list, watch]
  - apiGroups: [cert-manager.io]
    resources: [certificaterequests]
    verbs: [get, create, delete]
  - apiGroups: [""]
    resources: [secrets]
    verbs: [get, list, watch, create, update, patch, delete]
  {{- if .Values.upgrade.carryJournals }}
  # Journals that an earlier version has left beside their requests.
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [get, delete]
  {{- end }}
  - apiGroups: [""]
    resources: [services]
    verbs: [get, list, watch, create, patch, delete]
  - apiGroups: [""]
    resources: [serviceaccounts]
    verbs: [get, list, watch, create, patch]
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list, watch, patch, delete]
  - apiGroups: [""]
    resources: [pods/eviction]
    verbs: [create]
  - apiGroups: [""]
    resources: [events]
    verbs: [get, create, patch]
  - apiGroups: [apps]
    resources: [statefulsets]
    verbs: [get, list, watch, create, patch]
  - apiGroups: [apps.k8s.appscode.com]
    resources: [petsets]
    verbs: [get, list, watch, create, patch]
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [list]
  - apiGroups: [policy]
    resources: [poddisruptionbudgets]
    verbs: [get, list, watch, create, patch, delete]
{{- end -}}
