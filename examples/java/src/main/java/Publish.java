import static java.nio.charset.StandardCharsets.UTF_8;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.util.concurrent.atomic.AtomicBoolean;

/** Hands URLs to Warren and says which the broker has taken. */
public final class Publish {
  private static final String AMQP_URL =
      System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
  private static final String TASKS = System.getenv().getOrDefault("WARREN_NAMESPACE", "warren") + ".tasks";
  private static final boolean MANDATORY = true;

  public static void main(String[] urls) {
    if (urls.length == 0) {
      System.err.println("usage: java Publish URL...");
      System.exit(2);
    }
    try {
      publish(urls);
    } catch (Exception error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }

  private static void publish(String... urls) throws Exception {
    var factory = new ConnectionFactory();
    factory.setUri(AMQP_URL);
    try (Connection connection = factory.newConnection();
        Channel channel = connection.createChannel()) {
      channel.confirmSelect();
      var isReturned = new AtomicBoolean();
      channel.addReturnListener(returned -> isReturned.set(true));
      for (String url : urls) {
        channel.basicPublish("", TASKS, MANDATORY, MessageProperties.PERSISTENT_TEXT_PLAIN, url.getBytes(UTF_8));
        if (!channel.waitForConfirms()) {
          throw new IllegalStateException(
              "%s: the queue %s did not take it; is it full?".formatted(url, TASKS));
        }
        // It comes back before its confirmation, which a message that nobody takes gets as well.
        if (isReturned.get()) {
          throw new IllegalStateException(
              "%s: there is no queue %s; does Warren run on this broker, in this namespace?".formatted(url, TASKS));
        }
        System.out.println("taken " + url);
      }
    }
  }
}
