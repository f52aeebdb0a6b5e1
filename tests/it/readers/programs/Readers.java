import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.Comparator;
import java.util.List;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** Prints what Java's PKIX trust manager, which pgjdbc uses, says of each case. */
final class Readers {
    public static void main(String[] arguments) throws Exception {
        List<Path> cases;
        try (var found = Files.list(Path.of(arguments[0]))) {
            cases = found.sorted(Comparator.comparingInt(Readers::number)).toList();
        }
        for (Path directory : cases) {
            String said;
            try {
                judge(directory);
                said = "accepted";
            } catch (CertificateException error) {
                Throwable cause = error;
                while (cause.getCause() != null) {
                    cause = cause.getCause();
                }
                said = String.valueOf(cause.getMessage());
            }
            System.out.println(number(directory) + "\t" + said.replaceAll("\\s+", " "));
        }
    }

    private static int number(Path directory) {
        return Integer.parseInt(directory.getFileName().toString());
    }

    private static void judge(Path directory) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        int place = 0;
        for (X509Certificate anchor : read(directory.resolve("bundle.pem"))) {
            store.setCertificateEntry("anchor" + place++, anchor);
        }
        var factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(store);
        var manager = (X509TrustManager) factory.getTrustManagers()[0];
        var chain = read(directory.resolve("chain.pem")).toArray(new X509Certificate[0]);
        manager.checkServerTrusted(chain, "ECDHE_ECDSA");
    }

    private static List<X509Certificate> read(Path file) throws Exception {
        try (InputStream bytes = new ByteArrayInputStream(Files.readAllBytes(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(bytes).stream()
                    .map(X509Certificate.class::cast)
                    .toList();
        }
    }
}
