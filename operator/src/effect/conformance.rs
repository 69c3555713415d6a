//! What every keeper of objects does alike: the state folder on every run, a real API server in the e2e.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use super::{
    EffectError, SecretData,
    kubernetes::{self, ObjectKey, Objects, SecretDetails},
};
use crate::{
    difference,
    plan::{KubernetesStep, SecretContent, SecretRef},
};

fn config_map(namespace: &str, data: &Value) -> Value {
    difference::marked(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "acb-operator"}},
        "data": data,
    }))
}

/// In a namespace that is there, and empty. `settled` waits until what was done is known to the keeper.
pub(crate) async fn objects<F: Future<Output = ()>>(objects: &dyn Objects, namespace: &str, settled: impl Fn() -> F) {
    let wanted = config_map(namespace, &json!({"one": "1", "two": "2"}));
    let key = ObjectKey::of(&wanted).unwrap();

    // Absent.
    assert_eq!(objects.get(&key).await.unwrap(), None);
    objects.delete(&key).await.unwrap();

    // Applied, it is there at once, for who reads it and for who lists.
    objects.apply(&wanted).await.unwrap();
    assert!(!difference::differs(&wanted, &objects.get(&key).await.unwrap().unwrap()));
    assert!(objects.list(namespace).await.unwrap().contains_key(&key));
    objects.apply(&wanted).await.unwrap();

    // What is no longer wanted is gone.
    let fewer = config_map(namespace, &json!({"one": "1"}));
    objects.apply(&fewer).await.unwrap();
    let found = objects.get(&key).await.unwrap().unwrap();
    assert_eq!(found.pointer("/data"), Some(&json!({"one": "1"})), "{found}");

    // A Secret is made once, and never shown by a list.
    let secret = SecretRef { namespace: namespace.to_owned(), name: "keys".into(), generation: 1 };
    assert!(matches!(objects.read(&secret).await, Err(EffectError::MissingSecret(missing)) if missing == secret));
    let step =
        KubernetesStep::EnsureSecret { secret: secret.clone(), content: SecretContent::HubKeys, asked: Some("now".into()) };
    kubernetes::apply(objects, &step).await.unwrap();
    let first = objects.read(&secret).await.unwrap();
    kubernetes::apply(objects, &step).await.unwrap();
    objects.create_secret(&secret, SecretData::new().with("pepper", "other"), None).await.unwrap();
    assert_eq!(objects.read(&secret).await.unwrap().get("pepper"), first.get("pepper"));
    let listed = objects.list(namespace).await.unwrap();
    let shown = listed.get(&ObjectKey::secret(&secret)).unwrap();
    assert_eq!(shown.get("data"), None);
    let details = SecretDetails::of(shown);
    assert!(details.asked.as_deref() == Some("now") && !details.made.is_empty(), "{details:?}");

    foreign_secrets(objects, namespace).await;

    // Deleted, both are gone; deleted again, that is no error.
    for key in [key, ObjectKey::secret(&secret)] {
        objects.delete(&key).await.unwrap();
        settled().await;
        assert_eq!(objects.get(&key).await.unwrap(), None);
        objects.delete(&key).await.unwrap();
    }
    assert!(matches!(objects.read(&secret).await, Err(EffectError::MissingSecret(_))));
}

/// A Secret that someone else made is never taken for one that a step asks for.
async fn foreign_secrets(objects: &dyn Objects, namespace: &str) {
    let of = |name: &str| SecretRef { namespace: namespace.to_owned(), name: name.into(), generation: 1 };
    let authority = of("ca");
    let content = SecretContent::CertificateAuthority { common_name: "acme".into() };
    let ensure = async |secret: &SecretRef, content: &SecretContent| {
        let step = KubernetesStep::EnsureSecret { secret: secret.clone(), content: content.clone(), asked: None };
        kubernetes::apply(objects, &step).await
    };
    ensure(&authority, &content).await.unwrap();
    let key = SecretContent::ApiKey { authority: authority.clone() };
    // Made by the operator, it is found again.
    ensure(&of("a-api-key"), &key).await.unwrap();
    ensure(&of("a-api-key"), &key).await.unwrap();
    let made = objects.read(&of("a-api-key")).await.unwrap();
    // Labelled as the operator does, with a key of the right form, and with the seal of another.
    let forged = SecretData::new().with("api-key", made.get("api-key").unwrap()).with_seal(made.seal().unwrap());
    objects.create_secret(&of("b-api-key"), forged, None).await.unwrap();
    objects.create_secret(&of("c-api-key"), SecretData::new().with("api-key", "acb_abc_def"), None).await.unwrap();
    for name in ["b-api-key", "c-api-key"] {
        let error = ensure(&of(name), &key).await.unwrap_err();
        assert!(matches!(&error, EffectError::ForeignSecret(named) if *named == of(name)), "{error}");
        assert!(!error.is_transient() && error.to_string().contains(&format!("{name}-1")), "{error}");
    }
    for name in ["a-api-key", "b-api-key", "c-api-key", "ca"] {
        objects.delete(&ObjectKey::secret(&of(name))).await.unwrap();
    }
}
