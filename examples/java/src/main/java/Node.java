import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.UnroutableRpcRequestException;
import java.util.concurrent.TimeoutException;

/** Calls a node and prints its answer. One that is not there is told at once. */
public final class Node {
  private static final String AMQP_URL =
      System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
  private static final String NAMESPACE = System.getenv().getOrDefault("WARREN_NAMESPACE", "warren");
  private static final int TIMEOUT_S = Integer.parseInt(System.getenv().getOrDefault("TIMEOUT_S", "60"));

  public static void main(String[] args) {
    if (args.length < 2) {
      System.err.println("usage: java Node ID CALL [ARGS], for example: java Node worker-1 set-config '{\"concurrency\": 4}'");
      System.exit(2);
    }
    try {
      System.out.println(call(args[0], args[1], args.length > 2 ? args[2] : "{}"));
    } catch (Exception error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }

  private static String call(String node, String type, String args) throws Exception {
    var call = new JsonObject();
    call.addProperty("type", type);
    call.add("args", JsonParser.parseString(args));
    var properties =
        new BasicProperties.Builder()
            .contentType("application/json")
            .expiration(Integer.toString(TIMEOUT_S * 1000))
            .build();

    var factory = new ConnectionFactory();
    factory.setUri(AMQP_URL);
    try (Connection connection = factory.newConnection()) {
      Channel channel = connection.createChannel();
      var calls =
          new RpcClient(
              new RpcClientParams()
                  .channel(channel)
                  .exchange(NAMESPACE + ".node." + node)
                  .routingKey("command")
                  .replyTo(channel.queueDeclare().getQueue())
                  .useMandatory()
                  .timeout(TIMEOUT_S * 1000));
      byte[] body = calls.primitiveCall(properties, call.toString().getBytes(UTF_8));
      JsonObject answer = JsonParser.parseString(new String(body, UTF_8)).getAsJsonObject();
      if (!answer.get("ok").getAsBoolean()) {
        JsonObject error = answer.getAsJsonObject("error");
        throw new IllegalStateException(
            error.get("code").getAsString() + ": " + error.get("message").getAsString());
      }
      return answer.get("result").toString();
    } catch (UnroutableRpcRequestException error) {
      throw new IllegalStateException("node %s is not there".formatted(node), error);
    } catch (ShutdownSignalException error) {
      // A node that has been has an exchange; publishing to one that is missing costs the channel.
      if (error.getReason() instanceof AMQP.Channel.Close close && close.getReplyCode() == AMQP.NOT_FOUND) {
        throw new IllegalStateException("there has never been a node %s".formatted(node), error);
      }
      throw error;
    } catch (TimeoutException error) {
      throw new IllegalStateException("node %s did not answer within %d s".formatted(node, TIMEOUT_S), error);
    }
  }
}
